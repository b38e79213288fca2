"""Every figure of a report as data: its exact value and unit, and the topic that `archc explain` has on it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from archc import units
from archc.report.analysis import Analysis
from archc.report.sizing import Sizing

SHORT = {"B": units.binary_bytes, "FLOP": units.flops, "parameters": units.count}
TOPICS = {  # of the sections of the report
    "parameters": ("params", "active", "weights"),
    "cache": ("kv", "state"),
    "FLOPs": ("flops", "training", "kernels", "decode"),
    "memory": ("memory", "saved", "fit", "time"),
    "bounds": ("time", "bytes"),
    "ops": ("flops", "kernels", "bytes"),
}


@dataclass(frozen=True, slots=True)
class Figure:
    """One number. `unit` is B, FLOP, parameters, ns, or empty for a plain count."""

    label: str
    value: int
    unit: str
    topic: str

    @property
    def text(self) -> str:
        """As people read it."""
        if self.unit == "ns":
            return units.duration(self.value / 1e9)
        return SHORT.get(self.unit, units.exact)(self.value)


def figures(analysis: Analysis, sizing: Sizing | None = None) -> Iterator[Figure]:
    """All figures of one model under one workload."""
    params, state, batch = analysis.params, analysis.state.total, analysis.workload.batch
    yield Figure("layers", analysis.outline.n_layers, "", "params")
    yield Figure("parameters", params.total, "parameters", "params")
    yield Figure("active parameters", params.active, "parameters", "active")
    yield Figure("unrolled parameters", params.unrolled, "parameters", "params")
    yield Figure("routed experts", params.routed, "parameters", "active")
    yield Figure("embedding", params.embedding, "parameters", "params")
    yield Figure("head", params.head, "parameters", "params")
    yield Figure("weights", params.weight_bytes, "B", "weights")
    yield Figure("KV per token", state.kv_per_token.n_bytes, "B", "kv")
    yield Figure("KV", state.kv.n_bytes, "B", "kv")
    yield Figure("KV without windows", state.kv_unwindowed.n_bytes, "B", "kv")
    yield Figure("SSM state", state.ssm.n_bytes, "B", "state")
    yield Figure("conv state", state.conv.n_bytes, "B", "state")
    yield Figure("forward, model", analysis.model_flops, "FLOP", "flops")
    yield Figure(f"training, {analysis.convention}", analysis.training_flops, "FLOP", "training")
    yield Figure("forward, kernels", analysis.kernel_flops.total.forward // batch, "FLOP", "kernels")
    yield Figure("backward, kernels", analysis.kernel_flops.total.backward // batch, "FLOP", "kernels")
    yield Figure("decode step", analysis.flops.total.decode // batch, "FLOP", "decode")
    for sized in sizing.phases if sizing is not None else ():
        yield Figure(f"{sized.phase}: peak of a device", sized.memory.peak.n_bytes, "B", "memory")
        yield Figure(f"{sized.phase}: bytes read", sized.costs.total.read, "B", "bytes")
        yield Figure(f"{sized.phase}: bytes written", sized.costs.total.written, "B", "bytes")
        if sized.largest_context is not None and sized.largest_batch is not None:
            yield Figure(f"{sized.phase}: largest context", sized.largest_context, "", "fit")
            yield Figure(f"{sized.phase}: largest batch", sized.largest_batch, "", "fit")
        if sized.roofline is not None:
            nanoseconds = round(sized.roofline.total.seconds * 10**9)
            yield Figure(f"{sized.phase}: time, at least", nanoseconds, "ns", "time")
