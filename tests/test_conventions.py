"""FLOPs by the conventions of other projects: their own numbers, a second derivation, and what PaLM published."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from archc import compiler
from archc.compiler import Model
from archc.diagnostics import Source
from archc.passes.convention import Convention, training_flops
from archc.passes.flops import flops
from archc.passes.params import params
from archc.passes.workload import Workload
from tests.oracles import flop_conventions as oracle
from tests.oracles.flop_conventions import Sizes

ROOT = Path(__file__).parents[1]
FACTS = Path(__file__).parent / "facts"
MEGATRON = json.loads((FACTS / "megatron_flops.json").read_text())["training_flops"]
COUNTS = json.loads((FACTS / "counts.json").read_text())


def llama(layers: int, d: int, ff: int, heads: int, kv_heads: int, vocab: int, *, experts: int = 0) -> Sizes:
    return Sizes(
        d=d,
        vocab=vocab,
        n_attention=layers,
        heads=heads,
        kv_heads=kv_heads,
        d_head=d // heads,
        ff=ff,
        n_dense=0 if experts else layers,
        n_sparse=layers if experts else 0,
        experts=experts,
        top_k=2 if experts else 0,
    )


def mamba2(layers: int, d: int, *, vocab: int = 50288, groups: int = 1, tied: bool = True) -> Sizes:
    heads = 2 * d // 64
    return Sizes(d=d, vocab=vocab, n_mamba2=layers, mamba_heads=heads, d_state=128, groups=groups, tied=tied)


SIZES = {  # spec -> (name in facts, sizes)
    "llama_2_7b": ("Llama-2-7B", llama(32, 4096, 11008, 32, 32, 32000)),
    "llama_2_70b": ("Llama-2-70B", llama(80, 8192, 28672, 64, 8, 32000)),
    "llama_3_8b": ("Llama-3-8B", llama(32, 4096, 14336, 32, 8, 128256)),
    "mistral_7b_v0_1": ("Mistral-7B-v0.1", llama(32, 4096, 14336, 32, 8, 32000)),
    "mixtral_8x7b": ("Mixtral-8x7B", llama(32, 4096, 14336, 32, 8, 32000, experts=8)),
    "phi_3_mini": ("Phi-3-mini", llama(32, 3072, 8192, 32, 32, 32064)),
    "nvidia_mamba2_hybrid_8b": (
        "nvidia-mamba2-hybrid-8b",
        Sizes(
            d=4096,
            vocab=256000,
            n_attention=4,
            heads=32,
            kv_heads=8,
            d_head=128,
            n_dense=28,
            ff=16384,
            matrices=2,
            n_mamba2=24,
            mamba_heads=128,
            d_state=128,
            groups=8,
        ),
    ),
    "nvidia_mamba2_8b": ("nvidia-mamba2-8b", mamba2(56, 4096, vocab=256000, groups=8, tied=False)),
    "mamba2_130m": ("mamba2-130m", mamba2(24, 768)),
    "mamba2_370m": ("mamba2-370m", mamba2(48, 1024)),
    "mamba2_780m": ("mamba2-780m", mamba2(48, 1536)),
    "mamba2_1_3b": ("mamba2-1.3b", mamba2(48, 2048)),
    "mamba2_2_7b": ("mamba2-2.7b", mamba2(64, 2560)),
}


def model(text: str) -> Model:
    return compiler.load(Source("test", text))


def counted(found: Model, convention: Convention, tokens: int) -> int:
    workload = Workload(tokens, batch=2)
    tables = params(found.graph, workload), flops(found.graph, workload)
    return training_flops(convention, found.graph, workload, *tables)


def spec(name: str) -> Model:
    return model((ROOT / "specs" / f"{name}.arch").read_text("utf-8"))


@pytest.mark.parametrize("name", MEGATRON)
def test_megatron_is_what_its_function_returns(name: str) -> None:
    tokens, expected = MEGATRON[name]["tokens"], MEGATRON[name]["flops"]
    assert oracle.megatron(SIZES[name][1], tokens) == expected
    assert counted(spec(name), "megatron", tokens) == expected


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("tokens", [2048, 4097])
def test_every_convention_agrees_with_its_second_derivation(name: str, tokens: int) -> None:
    key, sizes = SIZES[name]
    active = COUNTS[key]["active_params"]  # counted by transformers on the meta device
    found = spec(name)
    assert counted(found, "megatron", tokens) == oracle.megatron(sizes, tokens)
    assert counted(found, "torchtitan", tokens) == oracle.torchtitan(sizes, active, tokens)
    assert counted(found, "palm", tokens) == oracle.palm(sizes, active, tokens)


def test_palm_reports_its_own_utilisation() -> None:
    """Appendix B: 46.2 % of the peak of 6,144 TPU v4 at 238.3 thousand tokens a second, 45.7 % without attention."""
    found = model(
        "vocab 256000; d_model 18432; tied; mlp swiglu(73728); context 2048"
        "; block x118 < attn mqa(48) d_head=256 || swiglu(73728) >"
    )
    peak = 6144 * 275e12
    counted_per_token = counted(found, "palm", 2048) / 2048
    assert round(100 * counted_per_token * 238.3e3 / peak, 1) == 46.2
    without_attention = 6 * params(found.graph, Workload(1)).active
    assert round(100 * without_attention * 238.3e3 / peak, 1) == 45.7


def test_archc_counts_visible_pairs_alone() -> None:
    """A window shrinks our count, not theirs; the router counts with us, not with Megatron."""
    windowed = "vocab 8; d_model 64; mlp none; block < attn mqa(4) window(16) >"
    full = windowed.replace(" window(16)", "")
    assert counted(model(windowed), "archc", 256) < counted(model(full), "archc", 256)
    for convention in ("megatron", "torchtitan", "palm"):
        assert counted(model(windowed), convention, 256) == counted(model(full), convention, 256)
    moe = "vocab 8; d_model 64; mlp none; block < moe(expert=swiglu(32)) top1/4 >"
    dense = "vocab 8; d_model 64; mlp none; block < swiglu(32) >"
    assert counted(model(moe), "megatron", 256) == counted(model(dense), "megatron", 256)
    assert counted(model(moe), "archc", 256) == counted(model(dense), "archc", 256) + 3 * 256 * 2 * 64 * 4
