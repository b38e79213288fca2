"""Each residual add runs together with the norm behind it.

For that the loop over layers is rotated: a layer hands on its last branch unadded, the next begins with add and norm.

Before:  x = rms_norm (h);  delta = mixer (x);  h = add (h, delta)                      carry: h
After:   x, residual = AddNorm(add, rms_norm) (residual, delta);  delta = mixer (x)      carry: delta, residual
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from archc.ir.graph import Graph, Node, OpGraph, counts, map_layers
from archc.ir.op import Printer
from archc.ir.region import Region
from archc.ir.values import Value
from archc.ops.norm import RMS_NORM_KERNEL, RMSNorm
from archc.ops.pointwise import Add


@dataclass(frozen=True, kw_only=True, eq=False)
class AddNorm(Region):
    """`residual + delta`, and its norm."""

    norm: RMSNorm

    def code(self, p: Printer) -> str:
        residual, delta = p.inputs
        name = p.kernel(RMS_NORM_KERNEL, "add_")
        return f"{name}({delta}, {residual}, {p.weight(self.norm.path)}.weight, {self.norm.eps!r})"


def fuse_add_norm(graph: Graph) -> Graph:
    """Rotate the whole stack, or leave it if a layer is not a chain of normed branches."""
    layers = {layer: _rotate(layer.graph) for layer in counts(graph.stack)}
    epilogue = _rotate(graph.epilogue)
    rotated = {layer: replace(layer, graph=changed) for layer, changed in layers.items() if changed is not None}
    if len(rotated) != len(layers) or epilogue is None:
        return graph
    return replace(graph, stack=map_layers(graph.stack, rotated), epilogue=epilogue)


def _rotate(graph: OpGraph) -> OpGraph | None:
    """The program on (delta, residual), if every stream value feeds one norm and at most one add."""
    if len(graph.inputs) != 1:
        return None
    (stream,) = graph.inputs
    residual, delta = replace(stream, name="residual", serial=-1 - stream.serial), Value(stream.axes, "delta")
    inputs = (delta, residual)
    replaced: dict[int, Node | None] = {}
    while True:
        norm = next((node for node in graph.consumers(stream) if isinstance(node.op, RMSNorm)), None)
        add = next((n for n in graph.consumers(stream) if isinstance(n.op, Add) and n.inputs[0] is stream), None)
        if norm is None or len(graph.consumers(stream)) != 1 + (add is not None):
            return None
        region, summed = _add_norm(norm, residual, delta)
        replaced[id(norm)] = region
        if add is None:
            outputs = graph.outputs
            break
        replaced[id(add)] = None
        residual, delta, stream = summed, add.inputs[1], add.outputs[0]
        if stream in graph.outputs:
            if graph.outputs != (stream,) or graph.consumers(stream):
                return None
            outputs = (delta, residual)
            break
    nodes = tuple(node for old in graph.nodes if (node := replaced.get(id(old), old)) is not None)
    return OpGraph(inputs, outputs, nodes)


def _add_norm(norm: Node, residual: Value, delta: Value) -> tuple[Node, Value]:
    """The region for `norm` over `residual + delta`, and the sum."""
    summed = Value(residual.axes, "residual")
    assert isinstance(norm.op, RMSNorm)
    inner = OpGraph(
        (residual, delta),
        (*norm.outputs, summed),
        (Node(Add(), (residual, delta), (summed,)), replace(norm, inputs=(summed,))),
    )
    region = AddNorm(inner=inner, norm=norm.op)
    return Node(region, (residual, delta), (*norm.outputs, summed), norm.scope), summed
