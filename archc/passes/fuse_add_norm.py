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
from archc.ir.tape import Tape
from archc.ir.values import Value
from archc.ops.norm import RMSNorm
from archc.ops.pointwise import Add


@dataclass(frozen=True, kw_only=True, eq=False)
class AddNorm(Region):
    """`residual + delta`, and its norm."""

    norm: RMSNorm

    def retain(self, tape: Tape, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> None:
        (residual, delta), (y, summed) = inputs, outputs
        _retain_sum(tape, residual, delta, summed)
        tape.keep(summed)
        tape.new(y)
        self.norm.retain_statistics(tape, summed)

    def code(self, p: Printer) -> str:
        residual, delta = p.inputs
        name = p.kernel(self.norm.kernel, "add_")
        return f"{name}({delta}, {residual}, {p.weight(self.norm.path)}.weight, {self.norm.eps!r})"


@dataclass(frozen=True, kw_only=True, eq=False)
class AddPending(Region):
    """`residual + delta` where the sum itself is needed; there is no delta before the first layer."""

    def retain(self, tape: Tape, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> None:
        (residual, delta), (summed,) = inputs, outputs
        _retain_sum(tape, residual, delta, summed)

    def code(self, p: Printer) -> str:
        residual, delta = p.inputs
        return f"{residual} if {delta} is None else {residual} + {delta}"


def _retain_sum(tape: Tape, residual: Value, delta: Value, summed: Value) -> None:
    """Without a delta the sum is the residual itself."""
    if tape.absent(delta):
        tape.view(summed, residual)
    else:
        tape.new(summed, wide=tape.wide(residual))


def fuse_add_norm(graph: Graph) -> Graph:
    """Rotate the whole stack, unless that is done already or a layer does not end in a residual add."""
    layers = {layer: _rotate(layer.graph) for layer in counts(graph.stack)}
    epilogue = _rotate(graph.epilogue)
    rotated = {
        layer: replace(layer, graph=changed)
        for layer, changed in layers.items()
        if changed is not None and len(changed.outputs) > len(layer.graph.outputs)
    }
    if len(rotated) != len(layers) or epilogue is None:
        return graph
    return replace(graph, stack=map_layers(graph.stack, rotated), epilogue=epilogue)


def _rotate(graph: OpGraph) -> OpGraph | None:
    """The program on (delta, residual) in place of the stream, or None if the stream is not a chain of adds."""
    stream, *others = graph.inputs
    if stream.name == "delta":
        return None
    residual, delta = replace(stream, name="residual", serial=-1 - stream.serial), Value(stream.axes, "delta")
    inputs = (delta, residual, *others)
    placed: dict[int, tuple[Node, ...]] = {}
    renamed: dict[Value, Value] = {}
    while stream not in graph.outputs:
        readers = graph.consumers(stream)
        add = next((n for n in reversed(readers) if _continues(n, stream)), None)
        rest = [node for node in readers if node is not add]
        if len(rest) == 1 and isinstance(rest[0].op, RMSNorm):
            region, summed = _add_norm(rest[0], residual, delta)
            placed[id(rest[0])] = (region,)
        else:
            region, summed = _pending(residual, delta)
            renamed[stream] = summed
            placed[id(readers[0])] = (region, *placed.get(id(readers[0]), (readers[0],)))
        if add is None:
            outputs = graph.outputs
            break
        placed[id(add)] = tuple(node for node in placed.get(id(add), ()) if node is not add)
        residual, delta, stream = summed, add.inputs[1], add.outputs[0]
    else:
        if graph.consumers(stream):
            return None
        outputs = (delta, residual, *graph.outputs[1:])
    nodes = [node for old in graph.nodes for node in placed.get(id(old), (old,))]
    return OpGraph(inputs, outputs, tuple(_reading(node, renamed) for node in nodes))


def _continues(node: Node, stream: Value) -> bool:
    """Whether `node` adds a branch of the layer to the stream, which makes the next stream."""
    return (
        isinstance(node.op, Add) and not node.scope and node.inputs[0] is stream and node.outputs[0].name == stream.name
    )


def _reading(node: Node, renamed: dict[Value, Value]) -> Node:
    return replace(node, inputs=tuple(renamed.get(value, value) for value in node.inputs)) if renamed else node


def _pending(residual: Value, delta: Value) -> tuple[Node, Value]:
    """The bare sum of `residual` and `delta`."""
    summed = Value(residual.axes, "residual")
    inner = OpGraph((residual, delta), (summed,), (Node(Add(), (residual, delta), (summed,)),))
    return Node(AddPending(inner=inner), (residual, delta), (summed,)), summed


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
