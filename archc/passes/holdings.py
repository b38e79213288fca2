"""What one device holds for as long as it runs: weights, masters, optimizer state, gradients, and caches of sequences.

Devices hold what a `Plan` leaves of a stage. A matrix is cut by tp, and so is a vector along anything but the stream;
norms of the stream and routers are whole. Routed experts have their own divisor. A tensor that does not divide is
counted as its largest share.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from archc.ir.graph import Graph, Layer
from archc.ir.values import State
from archc.passes.grouping import EMBEDDING, HEAD, groups
from archc.passes.params import GroupParams, Params, Tensor
from archc.passes.plan import Plan, Training
from archc.passes.workload import DTYPE_BYTES, Workload, stored_width


@dataclass(frozen=True, slots=True)
class Holdings:
    """Bytes of one device.

    `gradients` are what a pass leaves, in the dtypes of the weights, `added_up` what an update reads. `gathered` is
    what sharding brings together while a layer runs: its weights, those of the next, and its gradients.
    """

    weights: int = 0
    masters: int = 0
    optimizer: int = 0
    gradients: int = 0
    added_up: int = 0
    gathered: int = 0

    @property
    def persistent(self) -> int:
        """What stays from step to step."""
        return self.weights + self.masters + self.optimizer


def share(tensor: Tensor, plan: Plan, *, sharded: bool = True) -> int:
    """Elements of one `tensor` on one device; without `sharded`, of what it computes with."""
    elements = prod(tensor.shape)
    if tensor.routed:
        return -(-elements // (plan.expert_divisor if sharded else plan.ep if plan.ep > 1 else plan.tp))
    cut = plan.tp if tensor.cut else 1
    return -(-elements // (cut * (plan.shards if sharded else 1)))


def held_groups(graph: Graph, stage: Mapping[Layer, int], *, first: bool, last: bool) -> dict[str, int]:
    """How many parts of each group a stage holds. A head that is tied to an embedding elsewhere has that matrix too."""
    found = groups(graph)
    held = {group.name: group.within(stage) for group in found}
    held[EMBEDDING] = int(first or (last and graph.settings.tied))
    held[HEAD] = int(last)
    return held


def units(params: Params, workload: Workload, plan: Plan, training: Training | None) -> dict[str, Holdings]:
    """What a device keeps for one layer of each group, or one copy of a shared module; without `training`, weights."""
    return {group.name: _of(group, workload, plan, training) for group in params.groups}


def total(units: Mapping[str, Holdings], held: Mapping[str, int]) -> Holdings:
    """What a device keeps for so many parts of each group; of what is gathered, the most."""
    kept = [(units[name], count) for name, count in held.items() if count]
    sums = {f: sum(count * getattr(unit, f) for unit, count in kept) for f in Holdings.__slots__}
    most = {f: max((getattr(unit, f) for unit, _ in kept), default=0) for f in ("gathered",)}
    return Holdings(**{**sums, **most})


def _of(group: GroupParams, workload: Workload, plan: Plan, training: Training | None) -> Holdings:
    """One layer of a group, or one copy of a shared module."""
    weights = masters = optimizer = gradients = added_up = whole = 0
    for tensor in group.tensors:
        elements, width = share(tensor, plan), stored_width(tensor, workload.weights)
        weights += elements * width
        if plan.shards > 1 and not tensor.of_vocab:
            whole += share(tensor, plan, sharded=False) * width
        if training is None or tensor.int8:
            continue
        master = DTYPE_BYTES[training.master_dtype]
        masters += elements * master if master > width else 0
        optimizer += training.optimizer_bytes(elements, matrix=len(tensor.shape) > 1 and not tensor.of_vocab)
        gradients += elements * width
        added_up += elements * max(width, DTYPE_BYTES[training.grad_dtype])
    at_once = 2 + (training is not None)  # a layer's weights and the next one's; its gradients
    return Holdings(weights, masters, optimizer, gradients, added_up, at_once * whole)


def cache_bytes(graph: Graph, held: Mapping[str, int], workload: Workload, plan: Plan) -> dict[str, int]:
    """Bytes of what all sequences of a device keep at the end of the context, by kind of state.

    Keys and values have a head on each device at least; tokens are cut by cp.
    """
    found = {"kv": 0, "ssm": 0, "conv": 0}
    for group in groups(graph):
        for state in (kept for node in group.nodes for kept in node.op.state()):
            found[state.kind] += held[group.name] * workload.batch * _state_share(state, workload, plan)
    return found


def _state_share(state: State, workload: Workload, plan: Plan) -> int:
    sizes = [axis.size.at(workload.sequences) for axis in state.axes]
    if state.kind == "kv":
        sizes[0] = -(-sizes[0] // plan.cp)
    channels = 0 if state.kind == "ssm" else 1
    if state.kind != "kv" or len(sizes) > 2:  # a compressed cache has no heads to cut
        sizes[channels] = -(-sizes[channels] // plan.tp)
    return prod(sizes) * workload.bytes_of(state.dtype)
