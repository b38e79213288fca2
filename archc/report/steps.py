"""Figures that are no sum of products, step by step: counts by convention, bytes moved, memory, fit, bounds of time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from archc import units
from archc.passes.convention import Convention
from archc.report.analysis import Analysis
from archc.report.sizing import Sized, Sizing

Row = tuple[str, str, str]  # what, how, value


@dataclass(frozen=True, slots=True)
class Facts:
    """What steps are read from; `training` are FLOPs of one sequence by every convention."""

    analysis: Analysis
    sizing: Sizing
    training: Mapping[Convention, int]


@dataclass(frozen=True, slots=True)
class Steps:
    """What a figure means, its unit, and the rows that lead to it."""

    about: str
    unit: str
    rows: Callable[[Facts], Iterator[Row]]


COUNTED: dict[Convention, str] = {
    "archc": "3 x forward model FLOPs; `archc explain flops` says what those are",
    "megatron": "3 x (2 per weight of a product and token, T^2 / 2 pairs, 7 per state and token; no router, no conv)",
    "torchtitan": "T x 6 x active parameters (an untied embedding left out) + 3 x FLOPs of T^2 pairs",
    "palm": "T x (6 N + 12 L H Q T), N active parameters with the embedding",
}
PARTS = {
    "weights": "each tensor's elements / (tp x fsdp shards, or ep and shards for experts) x bytes of its dtype",
    "masters": "elements x bytes of --master-dtype, of weights that are narrower",
    "optimizer state": "elements x bytes that the optimizer keeps for each",
    "gradients": "elements x bytes of --grad-dtype, as an update reads them",
    "saved activations": "what backward reads; `archc explain saved` lists it; / (tp x cp), x passes in flight",
    "gathered weights": "of the largest layer: its weights, the next one's, and its gradients in training",
    "KV cache": "`archc explain kv`, x sequences, heads / tp, tokens / cp",
    "SSM state": "`archc explain state`, x sequences, channels / tp",
    "conv state": "`archc explain state`, x sequences, channels / tp",
    "activations": "most bytes of values that are alive at once in one layer, or in norm and head; / tp",
}
MOMENTS = {
    "end of forward": "weights + masters + optimizer state + saved activations",
    "loss, forward": "the same, with logits, their fp32 copy and log-probabilities",
    "loss, backward": "log-probabilities, their gradient and that of the logits, all fp32",
    "adding gradients up": "gradients of the pass go one by one into --grad-dtype",
    "update": "weights + masters + optimizer state + gradients",
    "prefill": "all parts at once",
    "decode": "all parts at once",
}
IN_BACKWARD = "what is saved before it, its own gradients and saved storages, gradients of the layers behind it"


def _training(facts: Facts) -> Iterator[Row]:
    tokens = facts.analysis.workload.context
    for convention, total in facts.training.items():
        yield convention, COUNTED[convention], f"{units.exact(total)} a sequence"
        yield "", "", f"{units.exact((2 * total + tokens) // (2 * tokens))} a token"


def _bytes(facts: Facts) -> Iterator[Row]:
    for sized in facts.sizing.phases:
        for group in sized.costs.groups:
            total = group.total
            yield (
                f"{sized.phase}: {group.name}",
                f"reads {units.exact(total.read)}",
                f"writes {units.exact(total.written)}",
            )
        total = sized.costs.total
        yield f"{sized.phase}: total", f"reads {units.exact(total.read)}", f"writes {units.exact(total.written)}"


def _memory(facts: Facts) -> Iterator[Row]:
    for sized in facts.sizing.phases:
        yield f"{sized.phase}: held by a device of stage {sized.memory.stage + 1}", "", ""
        for part in sized.memory.parts:
            yield f"  {part.name}", PARTS[part.name], units.exact(part.n_bytes)
        yield f"{sized.phase}: moments", "", ""
        for moment in sized.memory.moments:
            yield f"  {moment.name}", MOMENTS.get(moment.name, IN_BACKWARD), units.exact(moment.n_bytes)
        yield f"{sized.phase}: peak", sized.memory.peak.name, units.exact(sized.memory.peak.n_bytes)


def _fit(facts: Facts) -> Iterator[Row]:
    capacity = facts.sizing.request.capacity
    for sized in facts.sizing.phases:
        if capacity is None:
            yield sized.phase, "no limit was given: --gpu NAME or --max-memory SIZE", ""
            continue
        yield (
            f"{sized.phase}: left",
            f"{units.exact(capacity)} - {units.exact(sized.memory.peak.n_bytes)}",
            _left(sized, capacity),
        )
        most = {"context": sized.largest_context, "batch": sized.largest_batch}
        for what, n in most.items():
            yield (
                f"{sized.phase}: largest {what}",
                "the last integer whose peak is within the limit",
                units.exact(n or 0),
            )


def _left(sized: Sized, capacity: int) -> str:
    return units.exact(capacity - sized.memory.peak.n_bytes)


def _time(facts: Facts) -> Iterator[Row]:
    for sized in facts.sizing.phases:
        if sized.roofline is None:
            yield sized.phase, "no device was given: --gpu NAME", ""
            continue
        for bound in (*sized.roofline.groups, sized.roofline.total):
            both = f"compute {units.duration(float(bound.compute))}, memory {units.duration(float(bound.memory))}"
            yield f"{sized.phase}: {bound.name}", both, f"at least {units.duration(float(bound.seconds))}"


STEPS = {
    "training": Steps(
        "FLOPs of training on one sequence, forward and backward, as each convention counts.", "FLOP", _training
    ),
    "bytes": Steps(
        "bytes that ops read and write after fusion: every operand once, every result once, views never.", "B", _bytes
    ),
    "memory": Steps("bytes of one device, at the worst moment of the worst stage.", "B", _memory),
    "fit": Steps("what is left of a device's memory, and the largest context and batch that still fit.", "B", _fit),
    "time": Steps(
        "no op ends before its FLOPs at the peak rate or its bytes at the peak bandwidth; ops add up.", "s", _time
    ),
}
