"""A SiLU behind a causal convolution runs inside it.

Before:  x = causal_conv1d[conv1d] (x);  x = silu (x)
After:   x = ConvSilu(causal_conv1d[conv1d], silu) (x)
"""

from __future__ import annotations

from dataclasses import dataclass

from archc.ir.graph import Graph, OpGraph, rewrite
from archc.ir.op import Printer
from archc.ir.region import Region, fuse
from archc.ir.tape import Tape
from archc.ir.values import Value
from archc.ops.conv import CausalConv1d
from archc.ops.pointwise import Activation


@dataclass(frozen=True, kw_only=True, eq=False)
class ConvSilu(Region):
    """`silu(causal_conv1d(x))`."""

    @property
    def conv(self) -> CausalConv1d:
        op = self.inner.nodes[0].op
        assert isinstance(op, CausalConv1d)
        return op

    def retain(self, tape: Tape, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> None:
        tape.keep(*inputs)
        tape.new(*outputs)

    def code(self, p: Printer) -> str:
        return self.conv.call(p, silu=True)


def fuse_conv_silu(graph: Graph) -> Graph:
    return rewrite(graph, _fuse)


def _fuse(graph: OpGraph) -> OpGraph:
    for node in graph.nodes:
        if not isinstance(node.op, CausalConv1d):
            continue
        after = graph.sole_consumer(node.outputs[0])
        if after is not None and after.op == Activation(function="silu"):
            graph = fuse(graph, (node, after), ConvSilu, node.inputs, after.outputs)
    return graph
