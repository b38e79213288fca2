"""Hugging Face directories in and out: every tensor exactly once, streamed, and configured as the model is."""

import json
import resource
import subprocess
import sys

import pytest
import torch

library = pytest.importorskip("safetensors.torch")


@pytest.fixture
def run_folder(toy, make_model, tmp_path):
    """A run's directory with one checkpoint."""
    toy.checkpoint.save(tmp_path / "run", 3, make_model(seed=4))
    return tmp_path / "run"


@pytest.fixture
def hf_folder(toy, run_folder, tmp_path):
    """The same model as a Hugging Face directory."""
    return toy.hf.export_hf(run_folder, tmp_path / "hf")


def rewrite(folder, change):
    """Apply a change to the tensors of a directory of one file, as another tool would write it."""
    tensors = library.load_file(folder / "model.safetensors")
    change(tensors)
    library.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "manifest.json").unlink(missing_ok=True)


def configure(folder, **keys):
    config = json.loads((folder / "config.json").read_text()) | keys
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "manifest.json").unlink(missing_ok=True)


def same(a, b):
    return all(map(torch.equal, a.state_dict().values(), b.state_dict().values()))


def test_export_writes_their_names_and_one_tensor_per_expert(toy, hf_folder, make_model):
    model, tensors = make_model(seed=4), library.load_file(hf_folder / "model.safetensors")
    assert set(tensors) == {
        "model.embed_tokens.weight",
        *(f"model.layers.{i}.mixer.{name}" for i in range(2) for name in ("in_proj.weight", "decay")),
        *(f"model.layers.{i}.moe.router.weight" for i in range(2)),
        *(
            f"model.layers.{i}.moe.experts.{e}.{name}_proj.weight"
            for i in range(2)
            for e in range(3)
            for name in ("up", "down")
        ),
    }
    assert torch.equal(tensors["model.layers.1.moe.experts.2.up_proj.weight"], model.layers[1].experts.up_proj[2])
    config = json.loads((hf_folder / "config.json").read_text())
    assert config == {**toy.hub.CONFIG, "dtype": "float32"}


@pytest.mark.parametrize("shard_bytes", [10**9, 8000])
def test_round_trip(toy, make_model, run_folder, tmp_path, shard_bytes):
    folder = toy.hf.export_hf(run_folder, tmp_path / "hf", shard_bytes=shard_bytes)
    files = sorted(p.name for p in folder.glob("*.safetensors"))
    assert (folder / "model.safetensors.index.json").exists() == (len(files) > 1) == (shard_bytes == 8000)
    if len(files) > 1:
        index = json.loads((folder / "model.safetensors.index.json").read_text())
        held = {name: file for file in files for name in library.load_file(folder / file)}
        assert index["weight_map"] == held
        assert index["metadata"]["total_size"] == sum(p.nbytes for p in make_model().parameters())
    path = toy.hf.import_hf(folder, tmp_path / "back")
    assert path == tmp_path / "back" / "step-000000"
    imported, loaded = make_model(seed=1), make_model(seed=2)
    toy.checkpoint.load(path, imported)
    toy.hf.load_hf(loaded, folder)
    assert same(imported, make_model(seed=4))
    assert same(loaded, imported)
    before = (run_folder / "step-000003" / "model.safetensors").read_bytes()
    assert (path / "model.safetensors").read_bytes() == before


def test_a_bf16_checkpoint_stays_bf16(toy, hf_folder, make_model, tmp_path):
    rewrite(hf_folder, lambda tensors: tensors.update({name: t.bfloat16() for name, t in tensors.items()}))
    path = toy.hf.import_hf(hf_folder, tmp_path / "back")
    shards = toy.shards.Shards([path / "model.safetensors"])
    assert {shards.info(name).dtype for name in shards.names()} == {torch.bfloat16}
    again = toy.hf.export_hf(path, tmp_path / "again")
    theirs, ours = (library.load_file(folder / "model.safetensors") for folder in (hf_folder, again))
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[n], ours[n]) for n in theirs)
    assert json.loads((again / "config.json").read_text())["dtype"] == "bfloat16"


def test_a_tied_head_may_be_in_the_file(toy, hf_folder, make_model, tmp_path):
    rewrite(hf_folder, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].clone()}))
    model = make_model(seed=1)
    toy.hf.load_hf(model, hf_folder)
    assert same(model, make_model(seed=4))
    rewrite(hf_folder, lambda t: t["lm_head.weight"].add_(1))
    with pytest.raises(toy.shards.CheckpointError, match=r"tied in this model, .* lm_head\.weight"):
        toy.hf.load_hf(model, hf_folder)


def test_one_error_lists_everything_that_does_not_fit(toy, hf_folder, make_model, tmp_path):
    def spoil(tensors):
        del tensors["model.layers.0.moe.experts.1.up_proj.weight"]
        tensors["model.layers.0.moe.experts.3.up_proj.weight"] = torch.zeros(2, 2)
        tensors["model.layers.1.mixer.decay"] = torch.zeros(17)
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.zeros(4)  # follows from the configuration

    rewrite(hf_folder, spoil)
    for use in (
        lambda: toy.hf.import_hf(hf_folder, tmp_path / "back"),
        lambda: toy.hf.load_hf(make_model(), hf_folder),
    ):
        with pytest.raises(toy.shards.CheckpointError) as caught:
            use()
        assert str(caught.value).splitlines()[1:] == [
            "missing: model.layers.0.moe.experts.1.up_proj.weight",
            "unexpected: model.layers.0.moe.experts.3.up_proj.weight",
            "of another shape: model.layers.1.mixer.decay [17], not [16]",
        ]
    assert not (tmp_path / "back").exists()


def test_a_tensor_in_two_files_is_an_error(toy, run_folder, tmp_path):
    folder = toy.hf.export_hf(run_folder, tmp_path / "hf", shard_bytes=8000)
    (folder / "manifest.json").unlink()
    first, second, *_ = sorted(folder.glob("*.safetensors"))
    library.save_file(library.load_file(first) | library.load_file(second), second)
    with pytest.raises(toy.shards.CheckpointError, match=r"stored more than once: model\.embed_tokens\.weight in "):
        toy.hf.import_hf(folder, tmp_path / "back")


def test_a_changed_export_is_detected(toy, hf_folder, tmp_path):
    content = bytearray((hf_folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (hf_folder / "model.safetensors").write_bytes(content)
    with pytest.raises(toy.shards.CheckpointError, match=r"model\.safetensors was changed"):
        toy.hf.import_hf(hf_folder, tmp_path / "back")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("manifest.json", '{"files": 3}', "files is not a table of strings"),
        ("model.safetensors.index.json", "{}", "weight_map is not a table of strings"),
        ("model.safetensors.index.json", "[1", "is not a JSON object"),
        ("model.safetensors.index.json", '{"weight_map": {"a": "../model.safetensors"}}', "are missing"),
        ("config.json", "\x00", "is not a JSON object"),
        ("model.safetensors", "short", "is not a whole safetensors file"),
    ],
)
def test_damaged_directories_are_messages(toy, hf_folder, tmp_path, capsys, file, content, message):
    (hf_folder / "manifest.json").unlink()
    (hf_folder / file).write_text(content)
    assert toy.hf.main(["import", str(hf_folder), str(tmp_path / "back")]) == 1
    assert message in capsys.readouterr().err


def test_configurations_are_compared(toy, hf_folder, make_model):
    model = make_model()
    configure(hf_folder, transformers_version="4.0", dtype="float16", use_cache=False, architectures=None, new_key=1)
    toy.hf.load_hf(model, hf_folder)
    configure(hf_folder, rope_parameters=None, rope_theta=10000.0, rope_scaling=None)  # as 4.x writes it
    toy.hf.load_hf(model, hf_folder)
    configure(hf_folder, hidden_size=32, rope_theta=5e5, rope_scaling={"type": "linear", "factor": 2.0})
    with pytest.raises(toy.shards.CheckpointError) as caught:
        toy.hf.load_hf(model, hf_folder)
    assert str(caught.value).splitlines()[1:] == [
        "hidden_size: 32 there, 16 here",
        "rope_theta: 500000.0 there, 10000.0 here",
        "rope_type: 'linear' there, 'default' here",
    ]
    toy.hf.load_hf(model, hf_folder, allow=["hidden_size", "rope_theta", "rope_type"])


def test_other_words_for_the_same_function(toy, hf_folder, make_model):
    model = make_model()
    configure(hf_folder, max_position_embeddings=9)  # another promise about training, not another function
    toy.hf.load_hf(model, hf_folder)
    configure(hf_folder, model_type="toyling", sliding_window=None)
    toy.hf.load_hf(model, hf_folder)
    for keys, message in (
        ({"sliding_window": 4}, "sliding_window: 4 there, None here"),
        ({"model_type": "toy", "sliding_window": None}, "model_type: 'toy' there, 'toyformer' here"),
        ({"model_type": ["toyling"]}, r"model_type: \['toyling'\] there, 'toyformer' here"),
    ):
        configure(hf_folder, **keys)
        with pytest.raises(toy.shards.CheckpointError, match=message):
            toy.hf.load_hf(model, hf_folder)


def test_rows_that_do_not_fit_the_model_are_named(toy, make_model):
    infos = {name: toy.shards.Info(t.dtype, tuple(t.shape)) for name, t in make_model().state_dict().items()}
    with pytest.raises(toy.shards.CheckpointError, match=r"tensors without a name there: lm_head\.weight"):
        toy.hf_names.pairs(infos, [row for row in toy.hub.ROWS if row[0] != "lm_head.weight"])
    twice = [
        (ours, "model.one" if ours in ("embed.weight", "lm_head.weight") else theirs) for ours, theirs in toy.hub.ROWS
    ]
    with pytest.raises(toy.shards.CheckpointError, match=r"names that two tensors have there: model\.one"):
        toy.hf_names.pairs(infos, twice)
    with pytest.raises(toy.shards.CheckpointError, match=r"different numbers of \*"):
        toy.hf_names.pairs(infos, [("layers.*.a", "a")])


def test_the_most_literal_row_names_a_tensor(toy):
    rows = [("layers.*.norm", "model.layers.*.norm"), ("layers.3.norm", "model.special")]
    infos = {f"layers.{i}.norm": toy.shards.Info(torch.float32, (4,)) for i in (3, 12)}
    assert [pair.theirs for pair in toy.hf_names.pairs(infos, rows)] == [("model.special",), ("model.layers.12.norm",)]


def test_pieces_of_one_tensor_are_all_there(toy):
    rows = [("layers.*.gate", "layers.*.gate_up[0]"), ("layers.*.up", "layers.*.gate_up[1]")]
    infos = {f"layers.{i}.{name}": toy.shards.Info(torch.float32, (3, 2)) for i in (0, 1) for name in ("gate", "up")}
    found = toy.hf_names.pairs(infos, rows)
    assert [(pair.ours, pair.theirs, pair.their_shape, pair.rows) for pair in found[:2]] == [
        ("layers.0.gate", ("layers.0.gate_up",), (6, 2), slice(0, 3)),
        ("layers.0.up", ("layers.0.gate_up",), (6, 2), slice(3, 6)),
    ]
    del infos["layers.1.gate"]
    with pytest.raises(toy.shards.CheckpointError, match=r"pieces are missing: layers\.1\.gate_up$"):
        toy.hf_names.pairs(infos, rows)
    with pytest.raises(toy.shards.CheckpointError, match=r"two tensors have there: layers\.0\.gate_up$"):
        toy.hf_names.pairs({"layers.0.up": infos["layers.0.up"], "x": infos["layers.0.up"]},
                           [*rows, ("x", "layers.0.gate_up")])  # fmt: skip


def test_layouts_that_are_not_ours(toy):
    rows = [("alternate", "alternate[::2]"), ("axis", "axis[None]")]
    infos = {"alternate": toy.shards.Info(torch.float32, (4, 1)), "axis": toy.shards.Info(torch.float32, (4, 1))}
    alternate, axis = toy.hf_names.pairs(infos, rows)
    ours = torch.tensor([[0.0], [1.0], [10.0], [11.0]])
    theirs = torch.tensor([[0.0], [10.0], [1.0], [11.0]])
    assert torch.equal(alternate.from_theirs(theirs), ours)
    assert torch.equal(alternate.to_theirs(ours).reshape(alternate.their_shape), theirs)
    assert axis.their_shape == (1, 4, 1)
    assert torch.equal(axis.from_theirs(ours[None]), ours)


def test_uses_of_a_shared_module(toy):
    """Layers 2, 5 and 7 run the copies 0, 1 and 0."""
    uses = ((2, 0), (5, 1), (7, 0))
    names = ("g.0.w", "g.1.w", "layers.7.g_use.a", "layers.2.mixer.w", "layers.3.mixer.w")
    infos = {name: toy.shards.Info(torch.float32, (2,)) for name in names}
    rows = [
        ("layers.*.mixer.w", "plain.*.w"),
        ("layers.{use}.mixer.w", "fed.{use}.w"),
        ("g.{copy}.w", "layers.{home}.block.w"),
        ("layers.{use}.g_use.a", "layers.{each}.block.a.{nth}"),
    ]
    found = {pair.ours: (pair.theirs[0], pair.again, pair.perhaps) for pair in toy.hf_names.pairs(infos, rows, uses)}
    assert found == {
        "g.0.w": ("layers.2.block.w", (), ("layers.7.block.w",)),
        "g.1.w": ("layers.5.block.w", (), ()),
        "layers.7.g_use.a": ("layers.2.block.a.2", ("layers.7.block.a.2",), ()),
        "layers.2.mixer.w": ("fed.2.w", (), ()),
        "layers.3.mixer.w": ("plain.3.w", (), ()),
    }


def test_the_command(toy, make_model, run_folder, tmp_path, capsys):
    text = tmp_path / "text"
    text.write_text("text")
    hf, back = str(tmp_path / "hf"), str(tmp_path / "back")
    assert toy.hf.main(["export", str(run_folder), hf]) == 0
    assert toy.hf.main(["import", hf, back]) == 0
    assert capsys.readouterr().out == f"wrote {hf}\nwrote {back}/step-000000\n"
    assert toy.generate.main(["--checkpoint", back, "--prompt", "a", "--tokens", "3"]) == 0
    capsys.readouterr()
    for arguments, message in (
        (["export", str(run_folder), hf], "exists already"),
        (["export", str(tmp_path / "none"), str(tmp_path / "x")], "is not a directory"),
        (["import", str(tmp_path / "none"), str(tmp_path / "x")], "is not a directory"),
        (["import", str(tmp_path), str(tmp_path / "x")], "holds no config.json or toy.json"),
        (["import", str(text), str(tmp_path / "x")], "is not a whole file of torch.save"),
        (["import", hf, back], "holds checkpoints already"),
    ):
        assert toy.hf.main(arguments) == 1
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


def test_the_native_files_of_another_program(toy, make_model, run_folder, tmp_path):
    """Other names, another configuration, torch.save; and what was imported is what is written."""
    native = toy.hf.export_hf(run_folder, tmp_path / "native", family="native")
    assert sorted(path.name for path in native.iterdir()) == ["manifest.json", "toy.bin", "toy.json"]
    assert json.loads((native / "toy.json").read_text()) == {"width": 16, "cfg": {"experts": 3}}
    tensors = torch.load(native / "toy.bin", weights_only=True)
    assert torch.equal(tensors["toy.layers.1.moe.experts.2.up_proj.weight"], make_model(4).layers[1].experts.up_proj[2])
    (native / "manifest.json").unlink()
    torch.save({"model": tensors, "step": 3}, tmp_path / "loop.pth")
    for i, source in enumerate((native, native / "toy.bin", tmp_path / "loop.pth")):
        path = toy.hf.import_hf(source, tmp_path / f"back{i}")
        model = make_model(seed=1)
        toy.checkpoint.load(path, model)
        assert same(model, make_model(seed=4))
    again = toy.hf.export_hf(path, tmp_path / "again")
    assert {name: tensor.tolist() for name, tensor in torch.load(again / "toy.bin").items()} == {
        name: tensor.tolist() for name, tensor in tensors.items()
    }
    (native / "toy.json").write_text('{"width": 16, "cfg": {"experts": 4}, "other": 1}')
    with pytest.raises(toy.shards.CheckpointError, match=r"cfg\.experts: 4 there, 3 here"):
        toy.hf.import_hf(native, tmp_path / "wrong")
    with pytest.raises(toy.command.CommandError, match="this model is no gpt2; it is toyformer or toyling or native"):
        toy.hf.export_hf(path, tmp_path / "x", family="gpt2")


def test_training_goes_on_from_imported_weights(toy, hf_folder, text, tmp_path, capsys):
    toy.hf.import_hf(hf_folder, tmp_path / "run2")
    arguments = ["--data", str(text), "--out", str(tmp_path / "run2"), "--steps", "2", "--length", "16", "--resume"]
    assert toy.train.main([*arguments, "--dtype", "bfloat16"]) == 0
    assert toy.checkpoint.latest(tmp_path / "run2").name == "step-000002"


STREAMED = """
import resource, sys
from pathlib import Path
import torch
from toy_package import shards

MiB = 1 << 20
infos = {f"t{i}": shards.Info(torch.float32, (4, 2 * MiB)) for i in range(12)}  # 12 tensors of 32 MiB, in slices of 8

def copy(read):
    return {n: shards.Source(i, lambda n=n: (read(n, e) for e in range(4))) for n, i in infos.items()}

out = Path(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
shards.write_shards(out, "a", copy(lambda name, e: torch.full((2 * MiB,), float(e))), shard_bytes=100 * MiB)
read = shards.Shards(sorted(out.glob("a-*.safetensors"))).read
written = shards.write_shards(out, "b", copy(read), shard_bytes=100 * MiB)
assert len(written) == 4
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB there")
def test_memory_holds_one_slice_whatever_the_size(toy_folder, tmp_path):
    """384 MiB are written, read and written again; a slice is 8 MiB."""
    assert resource  # the child measures itself
    done = subprocess.run(
        [sys.executable, "-c", STREAMED, str(tmp_path)], cwd=toy_folder, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 40
