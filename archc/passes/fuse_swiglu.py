"""The gate of a gated network: SiLU and product in one kernel.

Before:  _ = silu (gate);  y = mul (_, up)
After:   y = GatedProduct(silu, mul) (gate, up)
"""

from __future__ import annotations

from dataclasses import dataclass

from archc.ir.graph import Graph, OpGraph, rewrite
from archc.ir.op import Kernel, Printer
from archc.ir.region import Region, fuse
from archc.ir.tape import Tape
from archc.ir.values import Value
from archc.ops.pointwise import Activation, Mul

SWIGLU_KERNEL = Kernel("swiglu", {}, "")


@dataclass(frozen=True, kw_only=True, eq=False)
class GatedProduct(Region):
    """`silu(gate) * up`."""

    def retain(self, tape: Tape, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> None:
        tape.keep(*inputs)
        tape.new(*outputs)

    def code(self, p: Printer) -> str:
        return f"{p.kernel(SWIGLU_KERNEL)}({', '.join(p.inputs)})"


def fuse_swiglu(graph: Graph) -> Graph:
    return rewrite(graph, _fuse)


def _fuse(graph: OpGraph) -> OpGraph:
    for node in graph.nodes:
        if node.op != Activation(function="silu"):
            continue
        (activated,) = node.outputs
        product = graph.sole_consumer(activated)
        if product is not None and isinstance(product.op, Mul) and len(product.inputs) == 2:
            up = next(value for value in product.inputs if value is not activated)
            graph = fuse(graph, (node, product), GatedProduct, (*node.inputs, up), product.outputs)
    return graph
