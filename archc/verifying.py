"""What was analysed beside what the built package measured of itself. Nothing here prints, exits or writes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, get_args

from archc.compiler import Model
from archc.ir.graph import Graph, unrolled
from archc.passes.accelerators import Accelerator
from archc.passes.flops import flops
from archc.passes.grouping import EMBEDDING, HEAD, layer_label, sublayer_labels
from archc.passes.params import params
from archc.passes.plan import Recompute, Training
from archc.passes.saved import LOSS, saved
from archc.passes.state import state
from archc.passes.workload import Dtype, Workload
from archc.report.sizing import Request
from archc.report.verification import Comparison, MeasuredStep, Verification
from archc.sizing import memory, size

TORCH: dict[Dtype, str] = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}  # what a package is built in


def as_built(workload: Workload) -> Workload:
    """The workload with its numbers as a package stores them: one dtype, and recurrent state in fp32."""
    return replace(workload, kv_dtype=workload.dtype, state_dtype="fp32", weight_dtype=None)


def training_step(recompute: Recompute, device: Accelerator | None) -> Request:
    """A training step as a package makes it, by its own optimizer."""
    return Request(("train",), training=Training(recompute=recompute), device=device)


def step_bytes(model: Model, workload: Workload, request: Request) -> int:
    """The predicted peak of a training step."""
    return memory(model, workload, request, "train").peak.n_bytes


def verification(model: Model, workload: Workload, request: Request, measured: Mapping[str, Any]) -> Verification:
    """Every figure twice. `measured` is what `measure.py` of the package printed for a workload `as_built`."""
    step = measured.get("step")
    return Verification(
        model.graph.settings.name,
        workload.batch,
        workload.context,
        workload.dtype,
        tuple(comparisons(model, workload, measured)),
        _step(model, workload, request, step) if step else None,
    )


def comparisons(model: Model, workload: Workload, measured: Mapping[str, Any]) -> Iterator[Comparison]:
    """The figures that are exact."""
    counted, kept = params(model.graph, workload), state(model.graph, workload).total
    executed = flops(model.lowered, workload).total
    cache_bytes = workload.batch * sum(part.n_bytes for part in (kept.kv, kept.ssm, kept.conv))
    yield Comparison("parameters", "1", counted.total, measured["parameters"])
    yield Comparison("parameters", "byte", counted.weight_bytes, measured["parameter_bytes"])
    yield Comparison("cache", "byte", cache_bytes, measured["cache_bytes"])
    yield Comparison("forward", "FLOP", executed.forward, measured["forward_flops"])
    yield Comparison("backward", "FLOP", executed.backward, measured["backward_flops"])
    for mode in get_args(Recompute):
        found = by_group(model.lowered, measured["saved_bytes"][mode])
        for group in saved(model.lowered, workload, mode).groups:
            yield Comparison(f"saved, recompute {mode}: {group.name}", "byte", group.n_bytes, found[group.name])


def by_group(graph: Graph, stages: Sequence[int]) -> Counter[str]:
    """Figures of the embedding, each layer, the head and the loss, added up as reports group them."""
    labels, found = sublayer_labels(graph), Counter[str]()
    names = [EMBEDDING, *(layer_label(layer, labels) for layer in unrolled(graph.stack)), HEAD, LOSS]
    for name, figure in zip(names, stages, strict=True):
        found[name] += figure
    return found


def _step(model: Model, workload: Workload, request: Request, step: Mapping[str, Any]) -> MeasuredStep:
    (sized,) = size(model, workload, request).phases
    bound = float(sized.roofline.total.seconds) if sized.roofline else None
    peak, seconds = step["peak_bytes"], step["step_seconds"]
    return MeasuredStep(step["device"], step["recompute"], sized.memory.peak.n_bytes, peak, seconds, bound)
