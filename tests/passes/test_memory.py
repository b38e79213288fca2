"""Memory over a step: laws that hold whatever the model, and small models counted by hand."""

from pathlib import Path

import pytest

from archc import compiler, sizing
from archc.compiler import Model
from archc.diagnostics import Source
from archc.passes.accelerators import ACCELERATORS
from archc.passes.memory import PREFILL_CHUNK
from archc.passes.params import params
from archc.passes.plan import Plan, Recompute, Training
from archc.passes.saved import saved
from archc.passes.state import state
from archc.passes.workload import Workload
from archc.report.sizing import PHASES, Request

ROOT = Path(__file__).parents[2]
SPECS = sorted((ROOT / "specs").glob("*.arch"))


def load(name: str) -> Model:
    return compiler.load(Source(name, (ROOT / "specs" / f"{name}.arch").read_text("utf-8")))


def peak(model: Model, workload: Workload, request: Request) -> int:
    return sizing.memory(model, workload, request, request.phases[0]).peak.n_bytes


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_moments_of_a_step_hold_what_they_must(path: Path) -> None:
    model, workload = load(path.stem), Workload(1024, batch=2)
    counted, kept = params(model.graph, workload), saved(model.lowered, workload)
    memory = sizing.memory(model, workload, Request(("train",)), "train")
    moments = {moment.name: moment.n_bytes for moment in memory.moments}
    parts = {part.name: part.n_bytes for part in memory.parts}
    persistent = parts["weights"] + parts["masters"] + parts["optimizer state"]
    assert moments["update"] == persistent + 4 * counted.total
    assert moments["end of forward"] == persistent + kept.n_bytes
    logits = 2 * 1024 * model.graph.settings.vocab.size.value
    assert moments["loss, backward"] >= moments["end of forward"] + 8 * logits - 64
    assert memory.peak.n_bytes == max(moments.values()) <= sum(parts.values()) + 12 * logits + 2**34
    decode = sizing.memory(model, workload, Request(("decode",)), "decode")
    cache = (
        workload.batch * (state(model.graph, workload).total.kv + state(model.graph, workload).total.recurrent).n_bytes
    )
    assert (
        decode.peak.n_bytes - {p.name: p.n_bytes for p in decode.parts}["activations"] == counted.weight_bytes + cache
    )


@pytest.mark.parametrize("name", ["jamba_tiny", "mamba2_130m", "samba_421m", "zamba2_1_2b"])
def test_recomputation_never_takes_more(name: str) -> None:
    model, workload = load(name), Workload(2048)
    modes: tuple[Recompute, ...] = ("none", "selective", "full")
    peaks = [peak(model, workload, Request(("train",), training=Training(recompute=mode))) for mode in modes]
    assert peaks == sorted(peaks, reverse=True)


@pytest.mark.parametrize("phase", PHASES)
def test_what_fits_is_exact(phase: str) -> None:
    model, workload = load("jamba_v0_1"), Workload(4096, weight_dtype="int8")
    training = Training(recompute="full")
    request = Request((phase,), Plan(fsdp=32), training, ACCELERATORS["h100"])  # type: ignore[arg-type]
    (sized,) = sizing.size(model, workload, request).phases
    assert sized.largest_context
    assert sized.largest_batch
    capacity = request.capacity
    assert capacity is not None

    def fits(context: int, batch: int) -> bool:
        return peak(model, Workload(context, batch, weight_dtype="int8"), request) <= capacity

    assert fits(sized.largest_context, 1)
    assert not fits(sized.largest_context + 1, 1)
    assert fits(4096, sized.largest_batch)
    assert not fits(4096, sized.largest_batch + 1)


def test_devices_share() -> None:
    model, workload = load("jamba_1_5_large"), Workload(4096)
    training = Training(recompute="full", accumulation=8)
    plans = [Plan(fsdp=64), Plan(fsdp=256), Plan(tp=8, fsdp=32, ep=16), Plan(tp=8, pp=4, fsdp=8, ep=16)]
    peaks = [peak(model, workload, Request(("train",), plan, training)) for plan in plans]
    assert peaks[1] < peaks[0]
    assert peaks[2] < peaks[1]
    every = params(model.graph, workload).total * 16
    assert all(p.n_devices * n > every for p, n in zip(plans, peaks, strict=True))


def test_a_tiny_transformer_by_hand() -> None:
    """One token mixer without positions; every storage that lives at the worst moment, in fp32 elements of 4 bytes."""
    text = "vocab 1000; d_model 8; mlp none; block < swiglu(16) >"
    model, workload = compiler.load(Source("test", text)), Workload(64, dtype="fp32", kv_dtype="fp32")
    memory = sizing.memory(model, workload, Request(("train",)), "train")
    n = params(model.graph, workload).total
    assert n == 2 * 8000 + 3 * 8 * 16 + 8 + 8
    held = 4 * n + 8 * n  # fp32 weights are their own masters
    logits = 4 * 64 * 1000
    saved_stack = 64 * 4 * (8 + 1 + 8 + 16 + 16 + 16)  # stream, rstd, normed, gate, up, product
    saved_head = 64 * 4 * (8 + 1 + 8)  # the sum, rstd, normed
    moments = {moment.name: moment.n_bytes for moment in memory.moments}
    assert moments["loss, backward"] == held + saved_stack + saved_head + 3 * logits
    assert moments["loss, forward"] == held + saved_stack + saved_head + 2 * logits
    assert moments["update"] == held + 4 * n


def test_a_prefill_runs_in_the_chunks_of_the_emitted_command() -> None:
    command = (ROOT / "archc" / "codegen" / "runtime" / "generate.py").read_text("utf-8")
    assert f"\nPREFILL = {PREFILL_CHUNK} " in command
    model = load("llama_3_8b")
    short, long = (peak(model, Workload(n, kv_dtype="fp8"), Request(("prefill",))) for n in (2048, 4096))
    per_token = state(model.graph, Workload(1, kv_dtype="fp8")).total.kv_per_token.n_bytes
    assert long - short == 2048 * per_token
