"""What a model takes on devices: memory, the largest that fits, costs of ops, and lower bounds of time."""

from __future__ import annotations

from dataclasses import dataclass

from archc.passes.accelerators import Accelerator
from archc.passes.costs import Costs, Phase
from archc.passes.memory import Memory
from archc.passes.plan import Plan, Training
from archc.passes.roofline import Roofline

ONE_DEVICE, PLAIN = Plan(), Training()
PHASES: tuple[Phase, ...] = ("train", "prefill", "decode")


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked: phases, on how many devices of what kind, and the most bytes that a device may be given."""

    phases: tuple[Phase, ...]
    plan: Plan = ONE_DEVICE
    training: Training = PLAIN
    device: Accelerator | None = None
    max_memory: int | None = None
    ops: bool = False
    curve: bool = False

    @property
    def capacity(self) -> int | None:
        """Bytes of a device that may be used: the smaller of the two limits."""
        limits = [n for n in (self.max_memory, self.device.memory if self.device else None) if n is not None]
        return min(limits) if limits else None


@dataclass(frozen=True, slots=True)
class Sized:
    """One phase. The largest context is for the workload's batch, the largest batch for its context; 0: none fits."""

    memory: Memory
    costs: Costs
    roofline: Roofline | None
    largest_context: int | None
    largest_batch: int | None

    @property
    def phase(self) -> Phase:
        return self.costs.phase


@dataclass(frozen=True, slots=True)
class Point:
    """Bytes of one device that serves the workload's batch at a context: weights, KV, and recurrent state."""

    context: int
    weights: int
    kv: int
    recurrent: int

    @property
    def total(self) -> int:
        return self.weights + self.kv + self.recurrent


@dataclass(frozen=True, slots=True)
class Sizing:
    """The answer to a request."""

    request: Request
    phases: tuple[Sized, ...]
    curve: tuple[Point, ...] = ()

    @property
    def fits(self) -> bool | None:
        """Whether every phase that was asked for fits; None without a capacity."""
        capacity = self.request.capacity
        return None if capacity is None else all(sized.memory.peak.n_bytes <= capacity for sized in self.phases)
