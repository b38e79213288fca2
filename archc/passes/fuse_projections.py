"""Projections that read one value become one matrix product over canonical, separately named weights.

Before:  q = linear[q_proj] (h);  k = linear[k_proj] (h);  v = linear[v_proj] (h)
After:   q, k, v = FusedLinear(linear[q_proj], linear[k_proj], linear[v_proj]) (h)
"""

from __future__ import annotations

from dataclasses import dataclass

from archc.ir.graph import Graph, Node, OpGraph, rewrite
from archc.ir.op import Printer
from archc.ir.region import Region, fuse
from archc.ir.size import add, mul
from archc.ir.tape import Tape
from archc.ir.values import Value, numel
from archc.ops.linear import Linear


@dataclass(frozen=True, kw_only=True, eq=False)
class FusedLinear(Region):
    """Several projections of one value, laid out side by side."""

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(module.name for module in self.modules())

    def packs(self) -> tuple[tuple[str, ...], ...]:
        return (self.paths,)

    def retain(self, tape: Tape, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> None:
        """Parts of one product; biases are added to each part by itself, and then nobody reads the product again."""
        tape.keep(*inputs)
        if len(self.weights()) == len(outputs):
            tape.new(*outputs, product=True)
            return
        tape.extra("product", mul(add(*(numel(v.axes) for v in outputs)), tape.element), kept=False, product=True)
        for value in outputs:
            tape.new(value)

    def imports(self) -> tuple[tuple[str, str], ...]:
        return ((".projections", "fused_linear"),)

    def code(self, p: Printer) -> str:
        return f"fused_linear({', '.join([*p.inputs, *map(p.weight, self.paths)])})"


def fuse_projections(graph: Graph) -> Graph:
    return rewrite(graph, _fuse)


def _fuse(graph: OpGraph) -> OpGraph:
    for value in [*graph.inputs, *(v for node in graph.nodes for v in node.outputs)]:
        readers = [node for node in graph.consumers(value) if _simple(node)]
        for owner in dict.fromkeys((node.scope, node.per_use) for node in readers):
            for bias in (False, True):
                members = tuple(n for n in readers if (n.scope, n.per_use) == owner and _bias(n) == bias)
                if len(members) > 1:
                    outputs = tuple(v for node in members for v in node.outputs)
                    graph = fuse(graph, members, FusedLinear, (value,), outputs)
    return graph


def _simple(node: Node) -> bool:
    return isinstance(node.op, Linear) and len(node.op.to) == 1 and not node.op.bias_elsewhere


def _bias(node: Node) -> bool:
    assert isinstance(node.op, Linear)
    return node.op.bias
