"""A fused region: several ops that run as one kernel.

Weights, FLOPs, state and shapes derive from the ops inside; a region adds only the line that it prints and the kernel
that it calls. Subclasses live beside the pass that makes them.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

from archc.ir.graph import Node, OpGraph
from archc.ir.op import Flops, Module, Op, Result
from archc.ir.size import Size, add
from archc.ir.tape import Tape
from archc.ir.values import State, Value, Weight, numel


@dataclass(frozen=True, kw_only=True, eq=False)
class Region(Op):
    """`inner` is the program that the region stands for; its inputs and outputs are the region's, in order."""

    inner: OpGraph

    def results(self, *inputs: Value) -> tuple[Result, ...]:
        return tuple(Result(value.axes, value.type) for value in self.inner.outputs)

    def weights(self) -> tuple[Weight, ...]:
        return tuple(weight for node in self.inner.nodes for weight in node.op.weights())

    def modules(self) -> tuple[Module, ...]:
        return tuple(module for node in self.inner.nodes for module in node.op.modules())

    def state(self) -> tuple[State, ...]:
        return tuple(state for node in self.inner.nodes for state in node.op.state())

    def flops(self, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> Flops:
        return sum((node.op.flops(node.inputs, node.outputs) for node in self.inner.nodes), Flops())

    def pair_flops(self, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> Size:
        return add(*(node.op.pair_flops(node.inputs, node.outputs) for node in self.inner.nodes))

    def borrowed(self, inputs: tuple[Value, ...]) -> tuple[Weight, ...]:
        return tuple(weight for node in self.inner.nodes for weight in node.op.borrowed(node.inputs))

    def touched(self, weight: Weight) -> Size:
        owner = next((node.op for node in self.inner.nodes if weight in node.op.weights()), None)
        return owner.touched(weight) if owner is not None else numel(weight.axes)

    def workspace(self, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> tuple[Size, Size]:
        held = [node.op.workspace(node.inputs, node.outputs) for node in self.inner.nodes]
        return add(*(forward for forward, _ in held)), add(*(backward for _, backward in held))

    @abstractmethod
    def retain(self, tape: Tape, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> None:
        """What its kernel keeps, which the ops inside know nothing of."""

    @property
    def matmul(self) -> bool:
        return any(node.op.matmul for node in self.inner.nodes)

    @property
    def mixes_tokens(self) -> bool:
        return any(node.op.mixes_tokens for node in self.inner.nodes)

    @property
    def label(self) -> str:
        return f"{type(self).__name__}({', '.join(node.op.label for node in self.inner.nodes)})"


def fuse(
    graph: OpGraph,
    members: tuple[Node, ...],
    region: type[Region],
    inputs: tuple[Value, ...],
    outputs: tuple[Value, ...],
) -> OpGraph:
    """`graph` with `members` contracted to one node of type `region`."""
    order = {id(node): i for i, node in enumerate(graph.nodes)}
    inside = tuple(sorted(members, key=lambda node: order[id(node)]))
    first = inside[0]
    node = Node(region(inner=OpGraph(inputs, outputs, inside)), inputs, outputs, first.scope, first.per_use)
    return graph.contract(inside, node)
