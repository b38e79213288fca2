"""The formula behind each budget, term by term, as the graph states it: what `archc explain` prints.

A term is `times x value`; the terms of a topic add up to the figure of the report, for that is what they are read from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod

from archc.ir.graph import Graph, Node
from archc.ir.size import Size, Symbol, mul, symbols
from archc.ir.values import State, Weight
from archc.passes.grouping import Group, groups
from archc.passes.workload import DTYPE_BYTES, Workload, stored_width

FP32 = DTYPE_BYTES["fp32"]


@dataclass(frozen=True, slots=True)
class Binding:
    """A symbol of a formula: its value here, and the expression that it is short for, if it is."""

    name: str
    value: int
    definition: str


@dataclass(frozen=True, slots=True)
class Term:
    """`times` equal parts of a group; `factor` says what the formula is multiplied with: bytes, a share, or nothing."""

    group: str
    times: int
    name: str
    formula: str
    bindings: tuple[Binding, ...]
    factor: str
    value: int

    @property
    def total(self) -> int:
        return self.times * self.value


def parameters(graph: Graph, workload: Workload) -> Iterator[Term]:
    """Every stored element."""
    return _weights(graph, workload, lambda weight: ("", weight.numel))


def active(graph: Graph, workload: Workload) -> Iterator[Term]:
    """Elements that one token uses."""
    return _weights(
        graph,
        workload,
        lambda weight: (f"{weight.active}" if weight.active != 1 else "", int(weight.numel * weight.active)),
    )


def weight_bytes(graph: Graph, workload: Workload) -> Iterator[Term]:
    """Bytes of every stored tensor."""

    def stored(weight: Weight) -> tuple[str, int]:
        size = stored_width(weight, workload.weights)
        return f"{size} B", weight.numel * size

    return _weights(graph, workload, stored)


def kv(graph: Graph, workload: Workload) -> Iterator[Term]:
    """Bytes of keys and values of one sequence at the end of the context."""
    return _states(graph, workload, "kv")


def ssm(graph: Graph, workload: Workload) -> Iterator[Term]:
    """Bytes of recurrent state of one sequence."""
    return _states(graph, workload, "ssm")


def conv(graph: Graph, workload: Workload) -> Iterator[Term]:
    """Bytes of the inputs that convolutions keep, for one sequence."""
    return _states(graph, workload, "conv")


def forward(graph: Graph, workload: Workload) -> Iterator[Term]:
    """Model FLOPs of one sequence, forward."""
    return _flops(graph, workload.sequences, lambda node: node.op.flops(node.inputs, node.outputs).model)


def kernels(graph: Graph, workload: Workload) -> Iterator[Term]:
    """FLOPs that kernels execute forward, of one sequence."""
    return _flops(graph, workload.sequences, lambda node: node.op.flops(node.inputs, node.outputs).forward)


def backward(graph: Graph, workload: Workload) -> Iterator[Term]:
    """FLOPs that kernels execute backward, of one sequence."""
    return _flops(graph, workload.sequences, lambda node: node.op.flops(node.inputs, node.outputs).backward)


def decode(graph: Graph, workload: Workload) -> Iterator[Term]:
    """Model FLOPs of the last token of one sequence."""
    return _flops(graph, workload.last_token, lambda node: node.op.flops(node.inputs, node.outputs).model)


def _weights(graph: Graph, workload: Workload, value: Callable[[Weight], tuple[str, int]]) -> Iterator[Term]:
    for group in groups(graph):
        for module, node in group.stored:
            for weight in node.op.weights():
                name = f"{module}.{weight.path}" if module else weight.path
                factor, n = value(weight)
                size = mul(*(axis.symbol if axis.name.isidentifier() else axis.size for axis in weight.axes))
                yield _term(group, name, size, workload.sequences, factor, n)


def _states(graph: Graph, workload: Workload, kind: str) -> Iterator[Term]:
    for group in groups(graph):
        for node in group.nodes:
            for state in node.op.state():
                if state.kind == kind:
                    yield _term(
                        group, _name(node, state.name), _numel(state), workload.sequences, *_held(state, workload)
                    )


def _held(state: State, workload: Workload) -> tuple[str, int]:
    size = workload.bytes_of(state.dtype)
    return f"{size} B", size * prod(axis.size.at(workload.sequences) for axis in state.axes)


def _numel(state: State) -> Size:
    """With the tokens that are kept spelled out."""
    first, *rest = state.axes
    return mul(first.size, *(axis.symbol for axis in rest)) if state.kind == "kv" else state.numel


def _flops(graph: Graph, bound: dict[str, int], of: Callable[[Node], Size]) -> Iterator[Term]:
    one = {**bound, "B": 1}
    for group in groups(graph):
        for node in group.nodes:
            size = of(node)
            if size.at(one):
                yield _term(group, _name(node, node.op.label), size, one, "", size.at(one))


def _name(node: Node, label: str) -> str:
    return f"{node.scope}.{label}" if node.scope else label


def _term(group: Group, name: str, size: Size, bound: dict[str, int], factor: str, value: int) -> Term:
    return Term(group.name, group.times, name, str(size), tuple(_bindings(size, bound)), factor, value)


def _bindings(size: Size, bound: dict[str, int]) -> Iterator[Binding]:
    for name, symbol in symbols(size).items():
        yield Binding(name, symbol.at(bound), _definition(symbol))


def _definition(symbol: Symbol) -> str:
    text = "" if symbol.definition is None else str(symbol.definition)
    return "" if text.isdigit() else text
