"""What papers say of their models, reproduced: each test names the statement and what it assumes."""

from pathlib import Path

import pytest

from archc import compiler, sizing
from archc.compiler import Model
from archc.diagnostics import Source
from archc.passes.accelerators import ACCELERATORS
from archc.passes.costs import costs
from archc.passes.params import params
from archc.passes.plan import Plan
from archc.passes.roofline import roofline
from archc.passes.state import state
from archc.passes.workload import Workload
from archc.report.sizing import Request

ROOT = Path(__file__).parents[1]
GIB = 2**30


def spec(name: str) -> Model:
    return compiler.load(Source(name, (ROOT / "specs" / f"{name}.arch").read_text("utf-8")))


def text(source: str) -> Model:
    return compiler.load(Source("test", source))


@pytest.mark.parametrize(
    ("name", "gib"), [("jamba_v0_1", 4), ("mixtral_8x7b", 32), ("llama_2_7b", 128), ("jamba_1_5_large", 9)]
)
def test_kv_cache_at_256k(name: str, gib: int) -> None:
    """Jamba (arXiv:2403.19887, table 1) and Jamba-1.5 (arXiv:2408.12570, table 1): 16-bit caches at 256K tokens."""
    assert state(spec(name).graph, Workload(256 * 1024)).total.kv.n_bytes == gib * GIB


def test_jamba_serves_140k_tokens_on_one_gpu_of_80_gb() -> None:
    """Jamba, arXiv:2403.19887: up to 140K tokens on one A100 of 80 GB.

    Assumed: int8 weights (A_log and D in fp32), bf16 cache and activations, fp32 state, prompts in chunks of 2,048.
    With 16-bit weights it would not fit at all.
    """
    model, request = spec("jamba_v0_1"), Request(("prefill",), device=ACCELERATORS["a100"])
    int8 = Workload(140 * 1024, weight_dtype="int8")
    (sized,) = sizing.size(model, int8, request).phases
    assert sized.memory.peak.n_bytes < 80 * GIB
    assert sized.largest_context is not None
    assert sized.largest_context >= 140 * 1024
    (wide,) = sizing.size(model, Workload(1), request).phases
    assert wide.largest_context == 0


def test_longest_contexts_on_one_gpu_of_80_gb_are_in_the_published_order() -> None:
    """Jamba, arXiv:2403.19887, figure: twice the context of Mixtral, and seven times that of Llama-2-70B, at least.

    Assumed: weights in int8, so that all three fit, and nothing but weights, caches and one chunk.
    """
    request = Request(("prefill",), device=ACCELERATORS["a100"])
    jamba, mixtral, llama = (
        sizing.size(spec(name), Workload(4096, weight_dtype="int8"), request).phases[0].largest_context or 0
        for name in ("jamba_v0_1", "mixtral_8x7b", "llama_2_70b")
    )
    assert jamba > 2 * mixtral > 0
    assert jamba > 7 * llama > 0


def test_zamba_caches_keys_and_values_for_every_use_of_its_shared_block() -> None:
    """Zamba, arXiv:2405.16712: 13 uses of one block, each with its own cache of 16 heads of 464 in keys and values."""
    model = spec("zamba_7b_v1")
    total = state(model.graph, Workload(1)).total.kv_per_token.n_bytes
    assert total == 13 * 2 * 16 * 464 * 2
    shared = next(group for group in params(model.graph, Workload(1)).groups if group.name.startswith("share"))
    assert (shared.times, shared.uses) == (1, 13)


def test_jamba_1_5_large_has_94b_active_parameters() -> None:
    """Jamba-1.5, arXiv:2408.12570: 398B in all, 94B active. 52B, which is also written, is the total of Jamba v0.1."""
    large, first = (params(spec(name).graph, Workload(1)) for name in ("jamba_1_5_large", "jamba_v0_1"))
    assert (round(large.total / 1e9), round(large.active / 1e9)) == (399, 94)
    assert large.active == 94_149_338_592
    assert round(first.total / 1e9) == 52


def test_nvidia_hybrid_against_its_transformer() -> None:
    """NVIDIA, arXiv:2406.07887: 4 attention layers in place of 32, and up to 8 times the speed of generation.

    The Transformer (table 1): 32 layers, 32 heads in 8 groups, 4 d wide MLPs without gates. Bounds of a decode step at
    128Ki tokens on H100s that hold 32 sequences: what is left of 8 is weights and state.
    """
    transformer = text(
        "vocab 256000; d_model 4096; mlp gelu(16384); block x32 < attn gqa(32,8) d_head=128 rope(theta=1e4) >"
    )
    hybrid = spec("nvidia_mamba2_hybrid_8b")
    workload = Workload(128 * 1024, batch=32)
    caches = [state(model.graph, workload).total.kv.n_bytes for model in (transformer, hybrid)]
    assert caches == [8 * caches[1], 2 * GIB]
    speeds = [
        roofline(costs(model.lowered, workload, "decode"), workload, ACCELERATORS["h100"], Plan(tp=8)).total.seconds
        for model in (transformer, hybrid)
    ]
    assert 6 < float(speeds[0] / speeds[1]) < 8
