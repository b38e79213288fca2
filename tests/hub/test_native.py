"""The files of state-spaces/mamba and of Samba, under the names of the programs that wrote them.

Names, shapes and the order inside of joined matrices are written down here from those programs' sources; what the
weights compute is compared with programs written from the papers.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from archc import compiler, hub
from archc.compiler import Model
from archc.diagnostics import DiagnosticError, Source
from archc.hub.programs import configuration, spec_of
from tests.models.packages import Workshop
from tests.oracles.mamba2attn import mamba2attn
from tests.oracles.samba import samba

from .configs import random_config

torch = pytest.importorskip("torch")

Tensor = torch.Tensor
Tensors = dict[str, Tensor]
Shapes = dict[str, tuple[int, ...]]
B, T, EXACT = 2, 9, 1e-9  # float64, relative to the largest number: other orders of a few hundred sums

V, D, N, K, L = 24, 16, 3, 4, 4  # vocabulary, width, state, convolution, layers
HEADS, GROUPS, HEAD = 4, 2, 4  # of Samba's attention
D_FF, DT_RANK = 20, 1

SAMBA = {
    "name": "Samba_tiny", "vocab_size": 21, "padding_multiple": 8, "block_size": 32, "mb_per_layer": 2, "n_layer": L,
    "n_head": HEADS, "n_embd": D, "n_query_groups": GROUPS, "rotary_percentage": 1.0, "parallel_residual": False,
    "bias": False, "_norm_class": "FusedRMSNorm", "norm_eps": 1e-5, "_mlp_class": "LLaMAMLP",
    "intermediate_size": D_FF, "local_window": 5, "mamba_init": True, "ret_per_layer": -1,
}  # fmt: skip
MAMBA2ATTN = {
    "d_model": D, "d_intermediate": 0, "n_layer": 3, "vocab_size": 21, "ssm_cfg": {"layer": "Mamba2", "headdim": 8},
    "attn_layer_idx": [1], "attn_cfg": {"causal": True, "d_conv": K, "head_dim": 4, "num_heads": 3,
    "out_proj_bias": False, "qkv_proj_bias": False, "rotary_emb_dim": 2}, "rms_norm": True, "residual_in_fp32": True,
    "fused_add_norm": True, "pad_vocab_size_multiple": 8, "tie_embeddings": True,
}  # fmt: skip


def samba_shapes() -> Shapes:
    """Of `lit_gpt.model.GPT`: even layers are Mamba, odd ones attention; the head is tied."""
    mamba: Shapes = {
        "in_proj.weight": (4 * D, D), "conv1d.weight": (2 * D, 1, K), "conv1d.bias": (2 * D,),
        "out_proj.weight": (D, 2 * D),
        "x_proj.weight": (DT_RANK + 32, 2 * D), "dt_proj.weight": (2 * D, DT_RANK), "dt_proj.bias": (2 * D,),
        "A_log": (2 * D, 16), "D": (2 * D,),
    }  # fmt: skip
    attention: Shapes = {"attn.weight": ((HEADS + 2 * GROUPS) * HEAD, D), "proj.weight": (D, D)}
    found: Shapes = {"transformer.wte.weight": (V, D), "transformer.ln_f.weight": (D,), "lm_head.weight": (V, D)}
    for i in range(L):
        mixer = attention if i % 2 else mamba
        swiglu = {"w1.weight": (D_FF, D), "w2.weight": (D_FF, D), "w3.weight": (D, D_FF)}
        found |= {f"transformer.h.{i}.attn.{name}": shape for name, shape in mixer.items()}
        found |= {f"transformer.h.{i}.mlp.swiglu.{name}": shape for name, shape in swiglu.items()}
        found |= {f"transformer.h.{i}.norm_{n}.weight": (D,) for n in (1, 2)}
    return found


def samba_logits(theirs: Tensors, tokens: Tensor) -> Tensor:
    """What the paper's program makes of their tensors."""
    ours = {"embed.weight": theirs["transformer.wte.weight"], "norm.weight": theirs["transformer.ln_f.weight"]}
    for name, tensor in theirs.items():
        if not name.startswith("transformer.h."):
            continue
        _, _, i, part, inside = name.split(".", 4)
        layer = f"layers.{i}"
        if (part, inside) == ("attn", "attn.weight"):  # as CausalSelfAttention.forward takes q, k and v apart
            qkv = tensor.view(GROUPS, HEADS // GROUPS + 2, HEAD, D).split((HEADS // GROUPS, 1, 1), 1)
            for projection, rows in zip("qkv", qkv, strict=True):
                ours[f"{layer}.mixer.{projection}_proj.weight"] = rows.reshape(-1, D)
        elif part == "attn":
            ours[f"{layer}.mixer.{'o_' * (inside == 'proj.weight')}{inside}"] = tensor
        elif part == "mlp":  # xformers: w3(silu(w1(x)) * w2(x))
            projection = {"w1": "gate", "w2": "up", "w3": "down"}[inside.split(".")[1]]
            ours[f"{layer}.mlp.{projection}_proj.weight"] = tensor
        else:
            ours[f"{layer}.{'mixer' if part == 'norm_1' else 'mlp'}_norm.weight"] = tensor
    return samba(ours, tokens, n_layers=L, d_head=HEAD, window=5)


def mamba2attn_shapes() -> Shapes:
    """Of `mamba_ssm.models.mixer_seq_simple.MambaLMHeadModel`."""
    width = 2 * D + 2 * 128
    mamba2: Shapes = {
        "in_proj.weight": (2 * D + width + 4, D), "conv1d.weight": (width, 1, K), "conv1d.bias": (width,),
        "A_log": (4,), "D": (4,), "dt_bias": (4,), "norm.weight": (2 * D,), "out_proj.weight": (D, 2 * D),
    }  # fmt: skip
    attention: Shapes = {
        "in_proj.weight": (36, D), "conv1d.weight": (36, 1, K), "conv1d.bias": (36,), "out_proj.weight": (D, 12),
    }  # fmt: skip
    found: Shapes = {"backbone.embedding.weight": (V, D), "backbone.norm_f.weight": (D,), "lm_head.weight": (V, D)}
    for i in range(3):
        mixer = attention if i == 1 else mamba2
        found |= {f"backbone.layers.{i}.mixer.{name}": shape for name, shape in mixer.items()}
        found[f"backbone.layers.{i}.norm.weight"] = (D,)
    return found


def mamba2attn_logits(theirs: Tensors, tokens: Tensor) -> Tensor:
    renamed = {"embed.weight": theirs["backbone.embedding.weight"], "norm.weight": theirs["backbone.norm_f.weight"]}
    in_attention = {"in_proj": "qkv_proj", "conv1d": "qkv_conv", "out_proj": "o_proj"}
    for name, tensor in theirs.items():
        if name.startswith("backbone.layers."):
            _, _, i, part, *inside = name.split(".")
            words = [in_attention.get(word, word) if i == "1" else word for word in inside]
            renamed[".".join([f"layers.{i}", "mixer" if part == "mixer" else "mixer_norm", *words])] = tensor
    return mamba2attn(renamed, tokens, d_head=4, rotated=2)


CASES: dict[str, tuple[dict[str, Any], Callable[[], Shapes], Callable[[Tensors, Tensor], Tensor]]] = {
    "samba": (SAMBA, samba_shapes, samba_logits),
    "mamba2_ssm": (MAMBA2ATTN, mamba2attn_shapes, mamba2attn_logits),
}


@pytest.mark.parametrize("name", CASES)
def test_native_files(name: str, workshop: Workshop, tmp_path: Path) -> None:
    """Their config and their tensors in; the same logits; and the same files out, with what a loop saves beside."""
    config, shapes, logits = CASES[name]
    package = workshop(spec_of(Source("config.json", json.dumps(config)), name))
    (family,) = package.module("hub").FAMILIES
    assert family.name == name
    generator = torch.Generator().manual_seed(0)
    theirs = {key: torch.randn(shape, generator=generator) * 0.4 for key, shape in shapes().items()}
    theirs["lm_head.weight"] = next(iter(theirs.values()))
    folder = tmp_path / "theirs"
    folder.mkdir()
    torch.save(theirs, folder / family.weights)
    (folder / family.config_file).write_text(json.dumps(config))
    torch.save({"model": theirs, "hparams": {"nodes": 1}, "iter_num": 3}, tmp_path / "loop.pth")

    hf, checkpoint = package.module("hf"), package.module("checkpoint")
    for i, source in enumerate((folder, tmp_path / "loop.pth")):
        path = hf.import_hf(source, tmp_path / f"run{i}")
        model = package.module().Model()
        checkpoint.load(path, model)
        tokens = torch.randint(V, (B, T), generator=generator)
        want = logits({key: tensor.double() for key, tensor in theirs.items()}, tokens)
        with torch.no_grad():
            found = model.double()(tokens)
        assert float((found - want).abs().max() / want.abs().max()) <= EXACT

    out = hf.export_hf(path, tmp_path / "ours")
    written = torch.load(out / family.weights, weights_only=True)
    del theirs["lm_head.weight"]  # tied: the program makes it of the embedding
    assert written.keys() == theirs.keys()
    assert all(torch.equal(written[key], theirs[key]) for key in theirs)
    again = spec_of(Source("config.json", (out / family.config_file).read_text()), name)
    assert again == spec_of(Source("config.json", json.dumps(config)), name)


@pytest.mark.parametrize(("name", "native"), [("mamba", "mamba_ssm"), ("mamba2", "mamba2_ssm")])
def test_from_transformers_to_state_spaces_and_back(name: str, native: str, workshop: Workshop, tmp_path: Path) -> None:
    """The release of state-spaces/mamba and its conversion for transformers differ in one name."""
    transformers = pytest.importorskip("transformers")
    config = random_config(name, 3, tie_word_embeddings=True, vocab_size=24, layer_norm_epsilon=1e-5)
    theirs = transformers.AutoModelForCausalLM.from_config(config)
    theirs.save_pretrained(tmp_path / "theirs")
    package = workshop(hub.import_config((tmp_path / "theirs" / "config.json").read_text(), name))
    hf = package.module("hf")
    hf.import_hf(tmp_path / "theirs", tmp_path / "run")
    out = hf.export_hf(tmp_path / "run", tmp_path / "native", family=native)
    written = torch.load(out / "pytorch_model.bin", weights_only=True)
    assert {key.replace(".embedding.", ".embeddings.") for key in written} == theirs.state_dict().keys() - {
        "lm_head.weight"
    }
    said = json.loads((out / "config.json").read_text())
    if name == "mamba":  # what follows from other keys may be left to them
        said["ssm_cfg"]["dt_rank"] = "auto" if said["ssm_cfg"]["dt_rank"] == -(-said["d_model"] // 16) else 5
    (out / "config.json").write_text(json.dumps(said | {"attn_cfg": {"head_dim": None, "num_heads_kv": None}}))
    (out / "manifest.json").unlink()
    hf.import_hf(out, tmp_path / "run 2")
    back = transformers.AutoModelForCausalLM.from_pretrained(
        hf.export_hf(tmp_path / "run 2", tmp_path / "back", family=name)
    )
    assert all(torch.equal(back.state_dict()[key], tensor) for key, tensor in theirs.state_dict().items())


PUBLISHED: dict[str, dict[str, Any]] = {
    "mamba_130m": {"d_model": 768, "n_layer": 24, "ssm_cfg": {}, "pad_vocab_size_multiple": 8},
    "mamba_2_8b": {"d_model": 2560, "n_layer": 64, "ssm_cfg": {}, "pad_vocab_size_multiple": 8},
    "mamba2_130m": {"d_model": 768, "n_layer": 24, "ssm_cfg": {"layer": "Mamba2"}, "pad_vocab_size_multiple": 16},
    "mamba2_2_7b": {"d_model": 2560, "n_layer": 64, "ssm_cfg": {"layer": "Mamba2"}, "pad_vocab_size_multiple": 16},
    "mamba2attn_2_7b": {
        "d_model": 2560, "n_layer": 64, "ssm_cfg": {"layer": "Mamba2"}, "pad_vocab_size_multiple": 16,
        "attn_layer_idx": [9, 18, 27, 36, 45, 56], "attn_cfg": {"causal": True, "d_conv": 4, "head_dim": 128,
        "num_heads": 30, "out_proj_bias": False, "qkv_proj_bias": False, "rotary_emb_dim": 64},
    },
}  # fmt: skip
COMMON = {"vocab_size": 50277, "rms_norm": True, "residual_in_fp32": True, "fused_add_norm": True}
SPECS = Path(__file__).parents[2] / "specs"


def loaded(text: str) -> Model:
    return compiler.load(Source("spec", text))


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_files_of_state_spaces(name: str) -> None:
    """The configuration of a release is the spec in the tree, but for the length of training, which it does not say."""
    spec = spec_of(Source("config.json", json.dumps(COMMON | PUBLISHED[name])), name)
    in_tree = loaded((SPECS / f"{name}.arch").read_text())
    ours, theirs = (json.loads(configuration(model.graph, "mamba-ssm")) for model in (loaded(spec), in_tree))
    assert ours == theirs
    assert spec_of(Source("config.json", json.dumps(theirs)), name) == spec
    matched = hub.match(loaded(spec).graph)
    assert matched is not None
    assert {"mamba_ssm", "mamba2_ssm"} & {matched.family.name, *(other.family.name for other in matched.others)}


@pytest.mark.parametrize("name", ["samba_421m", "samba_1_3b", "samba_1_7b"])
def test_published_sizes_of_samba(name: str) -> None:
    in_tree = loaded((SPECS / f"{name}.arch").read_text())
    config = configuration(in_tree.graph, "samba")
    again = loaded(spec_of(Source("lit_config.json", config), name))
    assert configuration(again.graph, "samba") == config


@pytest.mark.parametrize(
    ("config", "change", "keys"),
    [
        (MAMBA2ATTN, {"ssm_cfg": {"layer": "Mamba3"}}, ["ssm_cfg.layer"]),
        (MAMBA2ATTN, {"ssm_cfg": {"layer": "Mamba2", "dt_limit": [0.1, 1]}}, ["ssm_cfg.dt_limit"]),
        (MAMBA2ATTN, {"ssm_cfg": {"layer": "Mamba2", "rmsnorm": False, "novel": 1}}, ["ssm_cfg.rmsnorm"]),
        (MAMBA2ATTN, {"ssm_cfg": 3}, ["ssm_cfg"]),
        (MAMBA2ATTN, {"attn_layer_idx": [3]}, ["attn_layer_idx"]),
        (MAMBA2ATTN, {"attn_layer_idx": 1}, ["attn_layer_idx"]),
        (MAMBA2ATTN, {"n_layer": "3"}, ["n_layer"]),
        (MAMBA2ATTN, {"n_layer": 10**12}, ["n_layer"]),
        (MAMBA2ATTN, {"d_intermediate": 128}, ["d_intermediate"]),
        (MAMBA2ATTN, {"rms_norm": False}, ["rms_norm"]),
        (MAMBA2ATTN, {"attn_cfg": {"causal": True}}, ["attn_cfg"]),
        (MAMBA2ATTN, {"attn_cfg": {"num_heads": 3, "head_dim": 4}}, ["attn_cfg.causal"]),
        (MAMBA2ATTN, {"attn_cfg": {"num_heads": 3, "head_dim": 4, "causal": True, "mlp_dim": 9}}, ["attn_cfg.mlp_dim"]),
        (SAMBA, {"_mlp_class": "GptNeoxMLP"}, ["_mlp_class"]),
        (SAMBA, {"parallel_residual": True}, ["parallel_residual"]),
        (SAMBA, {"full_per_layer": 2}, ["full_per_layer"]),
        (SAMBA, {"ret_per_layer": 2}, ["ret_per_layer"]),
        (SAMBA, {"mb_per_layer": -1}, ["mb_per_layer"]),
        (SAMBA, {"attn_layer_pos": "[1]"}, ["attn_layer_pos"]),
    ],
)  # fmt: skip
def test_what_changes_the_function_is_named(config: dict[str, Any], change: dict[str, Any], keys: list[str]) -> None:
    with pytest.raises(DiagnosticError) as raised:
        spec_of(Source("config.json", json.dumps(config | change)))
    named = [finding.message.partition("`: ")[0].removeprefix("`") for finding in raised.value.diagnostics]
    assert named[: len(keys)] == keys
