"""What each op costs in one phase: FLOPs, and the bytes that it reads and writes after fusion.

A fused region counts its border alone. Every operand is read once and every result written once, which is what a kernel
must move if nothing is left in a cache. Views move nothing. An embedding reads the rows of its tokens, experts without
a row are not read (rows are taken to be spread evenly), a decode step reads all state and writes what changes.

Backward of an op reads the gradients of its results, its weights, and what forward saved for it; it writes the
gradients of its operands and weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Literal

from archc.ir.graph import Graph, Node
from archc.ir.tape import INDEX_BYTES
from archc.ir.values import Value, Weight, numel
from archc.passes.grouping import Group, groups
from archc.passes.working_set import begin
from archc.passes.workload import DTYPE_BYTES, Workload, stored_width

Phase = Literal["train", "prefill", "decode"]
FP32 = DTYPE_BYTES["fp32"]


@dataclass(frozen=True, slots=True)
class Cost:
    """FLOPs and bytes; the two `backward_` fields that move bytes and the FLOPs are 0 outside training.

    `weights` are read; `weights_least` is what of them even the most uneven routing reads.
    """

    model_flops: int = 0
    kernel_flops: int = 0
    backward_flops: int = 0
    weights: int = 0
    weights_least: int = 0
    activations_read: int = 0
    activations_written: int = 0
    state_read: int = 0
    state_written: int = 0
    backward_read: int = 0
    backward_written: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Cost)))

    def __mul__(self, times: int) -> Cost:
        return Cost(*(times * getattr(self, f.name) for f in fields(Cost)))

    @property
    def read(self) -> int:
        return self.weights + self.activations_read + self.state_read + self.backward_read

    @property
    def written(self) -> int:
        return self.activations_written + self.state_written + self.backward_written

    @property
    def flops(self) -> int:
        """What kernels execute, backward included."""
        return self.kernel_flops + self.backward_flops


@dataclass(frozen=True, slots=True)
class OpCost:
    """One op of a group. `each` is one use of it, `matmul` says what its FLOPs run on."""

    label: str
    scope: str
    matmul: bool
    each: Cost
    moved: tuple[int, ...]  # bytes of each activation that a use reads or writes, for caches


@dataclass(frozen=True, slots=True)
class GroupCosts:
    """The ops of one of `times` equal layers, in order."""

    name: str
    times: int
    ops: tuple[OpCost, ...]

    @property
    def total(self) -> Cost:
        return sum((op.each for op in self.ops), Cost()) * self.times


@dataclass(frozen=True, slots=True)
class Costs:
    """Costs of a model in one phase: all sequences of a training step or a prefill, or one token of each."""

    phase: Phase
    groups: tuple[GroupCosts, ...]

    @property
    def total(self) -> Cost:
        return sum((group.total for group in self.groups), Cost())


def costs(graph: Graph, workload: Workload, phase: Phase) -> Costs:
    """Costs of `graph`, which is the model as it is built, in one phase of `workload`."""
    found = (group for group in groups(graph) if group.nodes)
    return Costs(phase, tuple(GroupCosts(g.name, g.times, tuple(_ops(graph, g, workload, phase))) for g in found))


def _ops(graph: Graph, group: Group, workload: Workload, phase: Phase) -> Iterator[OpCost]:
    tape = begin(graph, group.program, workload)
    bound = workload.last_token if phase == "decode" else workload.sequences

    def size(value: Value) -> int:
        if value.type == "plan":
            return 0
        each = INDEX_BYTES if value.type == "index" else tape.width(tape.wide(value))
        return numel(value.axes).at(bound) * each

    for node in group.nodes:
        tape.read, tape.kept = {}, {}  # those of this op alone
        node.op.retain(tape, node.inputs, node.outputs)
        if not node.op.is_view:
            read = tuple(size(value) for value in dict.fromkeys(node.inputs) if not tape.absent(value))
            written = tuple(map(size, node.outputs))
            lying = {buffer for value in tape.read for buffer in tape.places(value)}
            saved = sum(map(size, tape.read)) + sum(b.n_bytes.at(bound) for b in tape.kept if b not in lying)
            cost = _cost(node, workload, phase, sum(read), sum(written), saved)
            yield OpCost(node.op.label, node.scope, node.op.matmul, cost, (*read, *written))


def _cost(node: Node, workload: Workload, phase: Phase, read: int, written: int, saved: int) -> Cost:
    bound = workload.last_token if phase == "decode" else workload.sequences
    counted = node.op.flops(node.inputs, node.outputs)
    owned = (*node.op.weights(), *node.op.borrowed(node.inputs))
    weights = sum(node.op.touched(weight).at(bound) * _width(weight, workload) for weight in owned)
    least = sum(
        min(node.op.touched(weight).at(bound), int(weight.numel * weight.active)) * _width(weight, workload)
        for weight in owned
    )
    state_read, state_written = _state(node, workload, phase)
    training = phase == "train"
    return Cost(
        model_flops=counted.model.at(bound),
        kernel_flops=(counted.model if phase == "decode" else counted.forward).at(bound),  # a step is the recurrence
        backward_flops=counted.backward.at(bound) if training else 0,
        weights=weights,
        weights_least=least,
        activations_read=read,
        activations_written=written,
        state_read=state_read,
        state_written=state_written,
        backward_read=written + weights + saved if training else 0,
        backward_written=read + weights if training else 0,
    )


def _width(weight: Weight, workload: Workload) -> int:
    return stored_width(weight, workload.weights)


def _state(node: Node, workload: Workload, phase: Phase) -> tuple[int, int]:
    """Bytes of state read and written, of all sequences."""
    if phase == "train":
        return 0, 0
    read = written = 0
    for kept in node.op.state():
        held = workload.batch * kept.numel.at(workload.sequences) * workload.bytes_of(kept.dtype)
        if phase == "prefill":
            written += held
            continue
        read += held
        written += held // kept.axes[0].size.at(workload.sequences) if kept.kind == "kv" else held
    return read, written
