"""Bytes and FLOPs of ops, and the bounds that follow: sums that have to come out, and small models by hand."""

from fractions import Fraction
from pathlib import Path

import pytest

from archc import compiler
from archc.compiler import Model
from archc.diagnostics import Source
from archc.passes.accelerators import ACCELERATORS, TABLE, Accelerator
from archc.passes.costs import Phase, costs
from archc.passes.flops import flops
from archc.passes.grouping import groups
from archc.passes.params import params
from archc.passes.plan import Plan
from archc.passes.roofline import roofline
from archc.passes.state import state
from archc.passes.workload import Workload

SPECS = sorted((Path(__file__).parents[2] / "specs").glob("*.arch"))
PHASES: tuple[Phase, ...] = ("train", "prefill", "decode")
WORKLOAD = Workload(4096, batch=2)


def load(path: Path) -> Model:
    return compiler.load(Source(path.name, path.read_text("utf-8")))


def spec(text: str) -> Model:
    return compiler.load(Source("test", text))


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_sums_are_those_of_the_other_tables(path: Path) -> None:
    model = load(path)
    counted = flops(model.lowered, WORKLOAD).total
    train, prefill, decode = (costs(model.lowered, WORKLOAD, phase).total for phase in PHASES)
    assert (train.kernel_flops, train.backward_flops) == (counted.forward, counted.backward)
    assert train.model_flops == prefill.model_flops == counted.model
    assert prefill.kernel_flops == counted.forward
    assert decode.model_flops == decode.kernel_flops == counted.decode
    kept = state(model.graph, WORKLOAD).total
    assert prefill.state_written == decode.state_read == WORKLOAD.batch * (kept.kv.n_bytes + kept.recurrent.n_bytes)
    assert prefill.state_read == train.state_read == train.state_written == 0


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_a_decode_step_reads_the_weights_that_it_uses(path: Path) -> None:
    """All but the rows of other tokens; of experts those of one token at least; a shared module each time."""
    model = load(path)
    counted, decode = params(model.graph, WORKLOAD), costs(model.lowered, WORKLOAD, "decode").total
    tied = model.graph.settings.tied
    rows = WORKLOAD.batch * model.graph.settings.d_model.size.value * 2
    table = 0 if tied else counted.embedding * 2
    shared = 2 * (counted.unrolled - counted.total)
    everything = counted.weight_bytes - table + rows
    plain = len(counted.groups[0].tensors) == 1  # an embedding of one matrix
    if plain and not counted.routed and not shared:
        assert decode.weights == decode.weights_least == everything
    most = everything + 2 * shared + (0 if plain else 2 * counted.embedding)
    assert decode.weights_least <= decode.weights <= most
    assert costs(model.lowered, Workload(64, batch=1), "decode").total.weights_least <= decode.weights_least


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_what_looks_at_pairs_says_so(path: Path) -> None:
    """Model FLOPs that grow faster than the tokens are those of pairs, which other projects' conventions ask for."""
    for group in groups(load(path).graph):
        for node in group.nodes:
            model = node.op.flops(node.inputs, node.outputs).model
            once, twice = (model.at({"B": 1, "T": n, "P": 0, "context": 64}) for n in (32, 64))
            pairs = node.op.pair_flops(node.inputs, node.outputs).at({"B": 1})
            assert (twice != 2 * once) == bool(pairs), node.op.label
            if model.at({"B": 1, "T": 1, "P": 0, "context": 1}) and not node.op.matmul:
                assert node.op.mixes_tokens, f"{node.op.label} has FLOPs that run on no tensor core"


def test_a_fused_region_counts_its_border() -> None:
    text = "vocab 64; d_model 32; mlp none; block < swiglu(64) >"
    (layer,) = (g for g in costs(spec(text).lowered, Workload(16), "prefill").groups if "swiglu" in g.name)
    by_label = {op.label: op.each for op in layer.ops}
    gated = by_label["GatedProduct(silu, mul)"]
    assert (gated.activations_read, gated.activations_written) == (2 * 16 * 64 * 2, 16 * 64 * 2)
    both = by_label["FusedLinear(linear[gate_proj], linear[up_proj])"]
    assert (both.weights, both.activations_read) == (2 * 64 * 32 * 2, 16 * 32 * 2)


def test_backward_reads_gradients_weights_and_what_forward_saved() -> None:
    text = "vocab 64; d_model 32; mlp none; block < swiglu(64) >"
    (layer,) = (g for g in costs(spec(text).lowered, Workload(16), "train").groups if "swiglu" in g.name)
    by_label = {op.label: op.each for op in layer.ops}
    wide, narrow = 16 * 64 * 2, 16 * 32 * 2
    gated = by_label["GatedProduct(silu, mul)"]
    assert (gated.backward_read, gated.backward_written) == (wide + 2 * wide, 2 * wide)
    down = by_label["linear[down_proj]"]
    assert down.backward_read == narrow + down.weights + wide
    norm = by_label["AddNorm(add, rms_norm[mlp_norm] eps=1e-05)"]
    assert norm.backward_read == 2 * narrow + norm.weights + narrow + 16 * 4  # with one over the root of each row


def test_views_move_nothing_and_a_wide_stream_moves_twice() -> None:
    text = "vocab 64; d_model 32; mlp none; residual(dtype=fp32); block < attn mqa(2) >"
    wide = costs(spec(text).lowered, Workload(16), "prefill")
    narrow = costs(spec(text.replace("; residual(dtype=fp32)", "")).lowered, Workload(16), "prefill")
    assert not any(op.label.startswith(("split_heads", "merge_heads")) for g in wide.groups for op in g.ops)
    label = "AddNorm(add, rms_norm[mixer_norm] eps=1e-05)"
    (w,), (n,) = ([op.each for g in c.groups for op in g.ops if op.label == label] for c in (wide, narrow))
    stream = 16 * 32
    assert n.activations_read == stream * (2 + 2)
    assert w.activations_read == stream * (2 + 4)


def test_few_tokens_read_few_experts() -> None:
    model = spec("vocab 64; d_model 32; mlp none; block < moe(expert=relu2(16)) top2/8 >")
    expert = 2 * 32 * 16 * 2

    def read(batch: int) -> int:
        decode = costs(model.lowered, Workload(4, batch=batch), "decode")
        return sum(op.each.weights for g in decode.groups for op in g.ops if "expert_linear" in op.label)

    assert [read(batch) for batch in (1, 3, 4, 100)] == [2 * expert, 6 * expert, 8 * expert, 8 * expert]


# --- rooflines -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SPECS[::3], ids=lambda path: path.stem)
@pytest.mark.parametrize("phase", PHASES)
def test_a_bound_is_no_less_than_either_limit(path: Path, phase: Phase) -> None:
    spent = costs(load(path).lowered, WORKLOAD, phase)
    device = ACCELERATORS["h100"]
    bound = roofline(spent, WORKLOAD, device, Plan())
    assert bound.total.seconds >= max(bound.total.compute, bound.total.memory) > 0
    for group in bound.groups:
        assert group.compute + group.memory >= group.seconds >= max(group.compute, group.memory)
    assert bound.total.compute >= Fraction(spent.total.flops, device.rate("bf16", matmul=True))
    shared = roofline(spent, WORKLOAD, device, Plan(tp=2, cp=2, pp=2, fsdp=4))
    assert all(8 * b.seconds == a.seconds for a, b in zip(bound.groups, shared.groups, strict=True))


def test_decoding_is_bound_by_the_weights_and_a_long_prefill_by_products() -> None:
    model = spec("vocab 32000; d_model 4096; mlp swiglu(14336); block x32 < attn gqa(32,8) >")
    device = Accelerator("test", 80 * 2**30, 10**12, {"bf16": 10**15}, 10**14)
    decode, prefill = (roofline(costs(model.lowered, Workload(4096), p), Workload(4096), device, Plan()).total
                       for p in ("decode", "prefill"))  # fmt: skip
    read = params(model.graph, Workload(1)).weight_bytes
    assert decode.limit == "memory"
    assert 0.95 < float(decode.seconds) / (read / 1e12) < 1.1  # the embedding is not read, the cache is
    assert prefill.limit == "compute"


def test_the_table_of_devices_says_where_it_is_from() -> None:
    for device in TABLE:
        assert device.source.startswith("https://")
        assert device.tensor["bf16"] >= device.vector > 0
        assert device.rate("fp8", matmul=True) >= device.rate("bf16", matmul=True) >= device.rate("fp32", matmul=True)
        assert device.memory > 2**30
        assert device.bandwidth > 10**11
        assert device.cache > 0
