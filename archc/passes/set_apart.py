"""A part of a product that backward reads is copied where it reads no other part: the product need not be kept then.

Rotated queries and keys have storages of their own, so that of the fused projection only the values are read.

Before:  q, k, v = FusedLinear(...) (h);  q = rope (q);  k = rope (k);  y = attention (q, k, v)
After:   q, k, v = FusedLinear(...) (h);  v = apart (v);  q = rope (q);  k = rope (k);  y = attention (q, k, v)
"""

from __future__ import annotations

from dataclasses import replace

from archc.ir.graph import Graph, Node, OpGraph, rewrite
from archc.ir.tape import Buffer, Tape
from archc.ir.values import Value, numel
from archc.ops.apart import Apart

ELEMENT = 2  # bytes of a number; which parts are read hardly depends on it


def set_apart(graph: Graph) -> Graph:
    return rewrite(graph, _set_apart)


def _set_apart(graph: OpGraph) -> OpGraph:
    tape = Tape(ELEMENT)
    for value in graph.inputs:
        tape.put(value, Buffer(value.name or "", numel(value.axes)))
    for node in graph.nodes:
        node.op.retain(tape, node.inputs, node.outputs)
    read = [*tape.read, *graph.outputs]
    copies: dict[Value, Value] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        nodes.append(replace(node, inputs=tuple(copies.get(value, value) for value in node.inputs)))
        for value in _alone(node, tape, read):
            copies[value] = Value(value.axes, value.name, value.type)
            nodes.append(Node(Apart(), (value,), (copies[value],), node.scope, node.per_use))
    return replace(graph, nodes=tuple(nodes)) if copies else graph


def _alone(node: Node, tape: Tape, read: list[Value]) -> list[Value]:
    """The outputs of a node that backward reads, if all lie in one buffer and it reads some but not all of them."""
    places = {tape.places(value) for value in node.outputs}
    if len(node.outputs) == 1 or len(places) > 1:
        return []
    (place,) = places
    parts = {tape.part(value, node.outputs) for value in read if tape.places(value) == place}
    if None in parts or len(parts) == len(node.outputs):
        return []
    return [value for value in node.outputs if value in parts]
