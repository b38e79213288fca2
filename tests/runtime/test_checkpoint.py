"""Checkpoints: complete or absent whatever happens, verified, exact, and clear about another spec."""

import json
import subprocess
import sys

import pytest
import torch


def state_of(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_round_trip(toy, make_model, tmp_path):
    saved = make_model(seed=1)
    path = toy.checkpoint.save(tmp_path, 7, saved, run={"lr": 0.1})
    assert path == tmp_path / "step-000007"
    assert sorted(p.name for p in path.iterdir()) == ["manifest.json", "model.safetensors", "spec.arch"]
    loaded = make_model(seed=2)
    manifest = toy.checkpoint.load(path, loaded)
    assert equal(state_of(saved), state_of(loaded))
    assert (manifest.step, manifest.spec_hash, manifest.run) == (7, "toy-1", {"lr": 0.1})
    assert manifest.tied == {"lm_head.weight": "embed.weight"}
    assert loaded.lm_head.weight is loaded.embed.weight
    assert "lm_head.weight" not in toy.shards.Shards([path / "model.safetensors"])


def test_two_saves_are_byte_equal(toy, make_model, tmp_path):
    paths = [toy.checkpoint.save(tmp_path / run, 1, make_model()) for run in ("a", "b")]
    for file in paths[0].iterdir():
        assert file.read_bytes() == (paths[1] / file.name).read_bytes()


def test_shards_by_size(toy, make_model, tmp_path):
    saved = make_model(seed=1)
    path = toy.checkpoint.save(tmp_path, 1, saved, shard_bytes=8000)
    names = sorted(p.name for p in path.glob("*.safetensors"))
    assert len(names) > 2
    assert names[0] == f"model-00001-of-{len(names):05d}.safetensors"
    # 256 x 16 x 4 bytes: the embedding alone is more than a shard holds, and has one of its own
    assert all(p.stat().st_size < 9000 for p in path.glob("*.safetensors") if p.name != names[0])
    loaded = make_model(seed=2)
    toy.checkpoint.load(path, loaded)
    assert equal(state_of(saved), state_of(loaded))


def test_the_files_are_safetensors(toy, tmp_path):
    """Against the safetensors library, both ways, for every dtype and odd shapes."""
    library = pytest.importorskip("safetensors.torch")
    tensors = {
        f"{name}{shape}": torch.arange(n, dtype=torch.float32).reshape(shape).to(dtype)
        for name, dtype in toy.shards.DTYPES.items()
        for n, shape in ((1, ()), (3, (3,)), (0, (0, 4)), (6, (2, 3)))
    }
    sources = {name: toy.shards.Source.of(tensor) for name, tensor in tensors.items()}
    toy.shards.write_shards(tmp_path, "ours", sources)
    library.save_file(tensors, tmp_path / "theirs.safetensors")
    read = library.load_file(tmp_path / "ours.safetensors")
    shards = toy.shards.Shards([tmp_path / "theirs.safetensors"])
    assert read.keys() == tensors.keys() == set(shards.names())
    for name, tensor in tensors.items():
        for other in (read[name], shards.read(name)):
            assert other.dtype == tensor.dtype
            assert other.shape == tensor.shape
            assert torch.equal(other.float(), tensor.float())
    assert torch.equal(shards.read("F32(2, 3)", 1), tensors["F32(2, 3)"][1])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"1234567",
        b"\xff" * 64,
        b"\x08\0\0\0\0\0\0\0[1, 2]  ",
        b"\x02\0\0\0\0\0\0\0{}"[:9],
        (56).to_bytes(8, "little") + b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,80]}}  ' + bytes(8),
        (56).to_bytes(8, "little") + b'{"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}  ' + bytes(8),
        (54).to_bytes(8, "little") + b'{"a":{"dtype":"Q3","shape":[2],"data_offsets":[0,8]}}   ' + bytes(8),
        (54).to_bytes(8, "little") + b'{"a":{"dtype":"F32","shape":"x","data_offsets":[0]}}    ' + bytes(8),
    ],
)
def test_a_damaged_file_is_a_message(toy, tmp_path, content):
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(toy.shards.CheckpointError, match=r"x\.safetensors is not a whole safetensors file"):
        toy.shards.Shards([tmp_path / "x.safetensors"])


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from toy_package import checkpoint, shards, train

out, start = Path(sys.argv[1]), train.build(0, torch.device("cpu"), torch.float32)
checkpoint.save(out, 1, start)
second = train.build(1, torch.device("cpu"), torch.float32)
calls = ("fsync", "rename", "mkdir", "unlink", "rmdir")

def child(survives):
    def dying(call):
        def wrapper(*args, **kwargs):
            nonlocal survives
            if not survives:
                os.kill(os.getpid(), signal.SIGKILL)
            survives -= 1
            return call(*args, **kwargs)
        return wrapper
    for name in calls:
        setattr(os, name, dying(getattr(os, name)))
    checkpoint.save(out, 2, second, shard_bytes=8000)
    checkpoint.prune(out, 1)
    os._exit(0)

for survives in range(100):
    pid = os.fork()
    if not pid:
        child(survives)
    _, status = os.waitpid(pid, 0)
    visible = {path.name for path in out.iterdir() if not path.name.startswith(".")}
    newest = checkpoint.latest(out)
    assert newest and visible <= {"step-000001", "step-000002"}, visible
    for name in visible:  # whatever is there is whole
        model = train.build(5, torch.device("cpu"), torch.float32)
        checkpoint.load(out / name, model)
        wanted = start if name == "step-000001" else second
        assert all(map(torch.equal, model.state_dict().values(), wanted.state_dict().values()))
    if os.WIFEXITED(status):
        break
    if newest.name == "step-000002" and visible == {"step-000002"}:
        checkpoint.save(out, 1, start)  # as it was, for the next kill
assert os.WEXITSTATUS(status) == 0
assert [path.name for path in out.iterdir()] == ["step-000002"]
print(survives)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
def test_a_kill_leaves_complete_or_absent(toy_folder, tmp_path):
    """Die before every single system call that changes the disk, while writing step 2 and pruning step 1."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)], cwd=toy_folder, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 10


def test_a_failed_write_leaves_nothing(toy, make_model, tmp_path):
    def pieces():
        raise OSError(28, "No space left on device")

    source = toy.shards.Source(toy.shards.Info(torch.float32, (2,)), pieces)
    with pytest.raises(OSError, match="No space"):
        toy.checkpoint.write(tmp_path, 1, {"a": source}, tied={})
    assert list(tmp_path.iterdir()) == []


def load_all(toy, path, model):
    toy.checkpoint.load(path, model)
    toy.checkpoint.load_optimizer(path)


@pytest.mark.parametrize("file", ["model.safetensors", "spec.arch", "optimizer.safetensors"])
def test_a_tampered_file_is_detected(toy, make_model, tmp_path, file):
    model = make_model()
    path = toy.checkpoint.save(tmp_path, 1, model, optimizer={"step/a": torch.ones(3)})
    content = bytearray((path / file).read_bytes())
    content[-1] ^= 1
    (path / file).write_bytes(content)
    before = state_of(model)
    with pytest.raises(toy.shards.CheckpointError, match=f"not as it was written: {file} was changed"):
        load_all(toy, path, model)
    assert equal(before, state_of(model))
    (path / file).unlink()
    with pytest.raises(toy.shards.CheckpointError, match=f"{file} is missing"):
        load_all(toy, path, model)


def test_a_damaged_manifest_is_a_message(toy, make_model, tmp_path):
    path = toy.checkpoint.save(tmp_path, 1, make_model())
    whole = (path / "manifest.json").read_text()
    for content in (whole[:40], "[]", '{"format": 1}', "\x00", whole.replace('"step": 1', '"step": "one"')):
        (path / "manifest.json").write_text(content)
        with pytest.raises(toy.shards.CheckpointError, match="is damaged"):
            toy.checkpoint.read_manifest(path)
    (path / "manifest.json").write_text(whole.replace('"format": 1', '"format": 9'))
    with pytest.raises(toy.shards.CheckpointError, match="its format is 9, this package reads 1"):
        toy.checkpoint.read_manifest(path)


def test_names_in_a_manifest_cannot_leave_the_directory(toy, make_model, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"elsewhere")
    path = toy.checkpoint.save(tmp_path, 1, make_model())
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"]["../model.safetensors"] = toy.shards.sha256(tmp_path / "model.safetensors")
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(toy.shards.CheckpointError, match=r"model\.safetensors is missing"):
        toy.checkpoint.load(path, make_model())


def test_another_spec_says_what_differs(toy, make_model, tmp_path, monkeypatch):
    model = make_model()
    old = tmp_path / "old.arch"
    old.write_text("# A toy.\nmodel toy\nd_model 16\nblock x3 < gate > moe top3/3\n")
    model.extra = torch.nn.Parameter(torch.zeros(2))
    model.layers[0].decay = torch.nn.Parameter(torch.zeros(8))
    del model.layers[1].router
    with monkeypatch.context() as patch:
        patch.setattr(toy.checkpoint, "SPEC_HASH", "toy-0")
        patch.setattr(toy.checkpoint, "_SPEC", old)
        path = toy.checkpoint.save(tmp_path, 1, model)
    with pytest.raises(toy.shards.CheckpointError) as caught:
        toy.checkpoint.load(path, make_model())
    assert str(caught.value).replace(str(path), "PATH") == (
        "PATH was written by another spec (hash toy-0 there, toy-1 here)\n"
        "only in this model: layers.1.router.weight\n"
        "only in the checkpoint: extra\n"
        "of another shape: layers.0.decay [8] there, [16] here\n"
        "--- the checkpoint's spec\n"
        "+++ this package's spec\n"
        "@@ -3,2 +3,2 @@\n"
        " d_model 16\n"
        "-block x3 < gate > moe top3/3\n"
        "+block x2 < gate > moe top3/3"
    )


def test_another_spec_of_the_same_shapes_is_loaded_only_when_asked(toy, make_model, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(toy.checkpoint, "SPEC_HASH", "toy-0")
        path = toy.checkpoint.save(tmp_path, 1, make_model(seed=1))
    model = make_model(seed=2)
    with pytest.raises(toy.shards.CheckpointError, match="another spec"):
        toy.checkpoint.load(path, model)
    toy.checkpoint.load(path, model, other_spec=True)
    assert equal(state_of(model), state_of(make_model(seed=1)))


def test_latest_and_prune(toy, make_model, tmp_path):
    for step in (5, 40, 300, 1_000_000):
        toy.checkpoint.save(tmp_path, step, make_model())
    (tmp_path / "step-2000000").mkdir()  # without a manifest it is not a checkpoint
    assert toy.checkpoint.latest(tmp_path).name == "step-1000000"
    assert toy.checkpoint.find(tmp_path).name == "step-1000000"
    assert toy.checkpoint.find(tmp_path / "step-000040").name == "step-000040"
    toy.checkpoint.prune(tmp_path, 0)
    assert list(toy.checkpoint.steps(tmp_path)) == [5, 40, 300, 1_000_000]
    toy.checkpoint.prune(tmp_path, 2)
    assert list(toy.checkpoint.steps(tmp_path)) == [300, 1_000_000]
    assert toy.checkpoint.latest(tmp_path / "none") is None
    with pytest.raises(toy.shards.CheckpointError, match="is not a directory"):
        toy.checkpoint.find(tmp_path / "none")


def test_saving_a_step_again_replaces_it(toy, make_model, tmp_path):
    for seed in (1, 2):
        path = toy.checkpoint.save(tmp_path, 1, make_model(seed=seed))
    model = make_model()
    toy.checkpoint.load(path, model)
    assert equal(state_of(model), state_of(make_model(seed=2)))
    assert [p.name for p in tmp_path.iterdir()] == ["step-000001"]
