"""Lower bounds of time: no op ends sooner than its FLOPs take at the peak rate, or its bytes at the peak bandwidth.

    bound(op) = max(FLOPs / rate, bytes / bandwidth)        bound(group) = times x sum of bound(op)

Ops run one after the other, so bounds add up. What the last-level cache may spare is subtracted: of each activation as
much as the cache holds, of the weights and state of the whole phase once as much. Experts are counted as the most
uneven routing reads them. Devices of a plan share the work evenly, and talking to each other takes no time. What a
kernel takes to start, waits and half-filled tiles are not in a bound: whatever is measured takes longer.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from archc.passes.accelerators import Accelerator
from archc.passes.costs import Cost, Costs, OpCost
from archc.passes.plan import Plan
from archc.passes.workload import Workload


@dataclass(frozen=True, slots=True)
class Bound:
    """Seconds, exact: `compute` of all FLOPs, `memory` of all bytes, and the `seconds` that nothing can go below."""

    name: str
    times: int
    compute: Fraction
    memory: Fraction
    seconds: Fraction

    @property
    def limit(self) -> Literal["compute", "memory"]:
        """What takes longer: "compute" or "memory"."""
        return "compute" if self.compute > self.memory else "memory"


@dataclass(frozen=True, slots=True)
class Roofline:
    """Bounds of one phase: a training step, a prefill, or one step of decoding."""

    phase: str
    groups: tuple[Bound, ...]
    total: Bound

    def tokens_per_second(self, tokens: int) -> int:
        """The most that `tokens` in this time can be."""
        return int(tokens / self.total.seconds)


def roofline(costs: Costs, workload: Workload, device: Accelerator, plan: Plan) -> Roofline:
    """Bounds of `costs` on `plan.n_devices` of `device`, which share them evenly."""
    share = Fraction(1, plan.tp * plan.cp * plan.pp)
    bounds = []
    for group in costs.groups:
        ops = [_op(op, workload, device) for op in group.ops]
        parts = [group.times * share * sum((op[i] for op in ops), Fraction(0)) for i in range(3)]
        bounds.append(Bound(group.name, group.times, *parts))
    spared = Fraction(device.cache, device.bandwidth)
    compute = sum((bound.compute for bound in bounds), Fraction(0))
    memory = max(sum((bound.memory for bound in bounds), Fraction(0)) - spared, Fraction(0))
    seconds = max(sum((bound.seconds for bound in bounds), Fraction(0)) - spared, compute, memory)
    return Roofline(costs.phase, tuple(bounds), Bound("total", 1, compute, memory, seconds))


def _op(op: OpCost, workload: Workload, device: Accelerator) -> tuple[Fraction, Fraction, Fraction]:
    compute = Fraction(op.each.flops, device.rate(workload.dtype, matmul=op.matmul))
    memory = Fraction(_least_bytes(op.each, op.moved, device.cache), device.bandwidth)
    return compute, memory, max(compute, memory)


def _least_bytes(each: Cost, moved: tuple[int, ...], cache: int) -> int:
    """Bytes that must come from memory, whatever the cache holds of activations."""
    again = 2 if each.backward_read or each.backward_written else 1  # gradients are as large as what they belong to
    activations = again * sum(max(0, n_bytes - cache) for n_bytes in moved)
    weights = each.weights_least * (3 if again == 2 else 1)  # read twice, their gradient written
    return activations + weights + each.state_read + each.state_written
