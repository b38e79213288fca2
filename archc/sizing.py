"""The second half of an analysis: a model on devices. Nothing here prints, exits or writes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

from archc.compiler import Model, parameters
from archc.passes.costs import Phase, costs
from archc.passes.fit import largest
from archc.passes.memory import Memory, inference_memory
from archc.passes.roofline import roofline
from archc.passes.saved import saved
from archc.passes.training_memory import training_memory
from archc.passes.workload import Workload
from archc.report.sizing import Point, Request, Sized, Sizing

CURVE_START, CURVE_END = 2**10, 2**20  # tokens between which a curve is drawn at least, doubling


def size(model: Model, workload: Workload, request: Request) -> Sizing:
    """Memory, fit, costs and bounds of each phase that is asked for."""
    return Sizing(
        request,
        tuple(_sized(model, workload, request, phase) for phase in request.phases),
        _curve(model, workload, request) if request.curve else (),
    )


def memory(model: Model, workload: Workload, request: Request, phase: Phase) -> Memory:
    """Memory of one device in one phase."""
    counted = parameters(model, workload.weights)
    if phase != "train":
        return inference_memory(model.lowered, workload, request.plan, counted, decode=phase == "decode")
    kept = saved(model.lowered, workload, request.training.recompute)
    return training_memory(model.lowered, workload, request.plan, request.training, counted, kept)


def _sized(model: Model, workload: Workload, request: Request, phase: Phase) -> Sized:
    spent = costs(model.lowered, workload, phase)
    device, capacity = request.device, request.capacity

    @cache
    def n_bytes(context: int, batch: int) -> int:
        return memory(model, replace(workload, context=context, batch=batch), request, phase).peak.n_bytes

    def most(n_bytes: Callable[[int], int]) -> int | None:
        return None if capacity is None else largest(n_bytes, capacity)

    return Sized(
        memory(model, workload, request, phase),
        spent,
        roofline(spent, workload, device, request.plan) if device else None,
        most(lambda context: n_bytes(context, workload.batch)),
        most(lambda batch: n_bytes(workload.context, batch)),
    )


def _curve(model: Model, workload: Workload, request: Request) -> tuple[Point, ...]:
    contexts = {workload.context}
    context = min(CURVE_START, workload.context)
    while context <= max(CURVE_END, workload.context):
        contexts.add(context)
        context *= 2
    return tuple(_point(model, replace(workload, context=context), request) for context in sorted(contexts))


def _point(model: Model, workload: Workload, request: Request) -> Point:
    held = {part.name: part.n_bytes for part in memory(model, workload, request, "decode").parts}
    recurrent = held.get("SSM state", 0) + held.get("conv state", 0)
    return Point(workload.context, held["weights"], held.get("KV cache", 0), recurrent)
