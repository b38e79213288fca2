"""What must hold of a graph after every pass. A violation is a bug of archc, never of a spec."""

from __future__ import annotations

from weakref import WeakSet

import networkx as nx

from archc.ir.graph import Graph, OpGraph, counts, op_graphs
from archc.ir.values import Value


class InvalidGraphError(AssertionError):
    """The graph breaks a law of the IR; the message names the node."""


_verified: WeakSet[OpGraph] = WeakSet()  # programs are immutable, and most passes leave most of them alone


def verify(graph: Graph, after: str) -> Graph:
    """`graph`, if every op graph in it is well formed and the layers fit each other."""
    for op_graph in op_graphs(graph):
        _verify_program(op_graph, after)
    extra = len(graph.invariants)
    carry = {(len(layer.graph.inputs) - extra, len(layer.graph.outputs)) for layer in counts(graph.stack)}
    handed = len(graph.epilogue.inputs) + len(graph.carried)
    carry.add((handed, handed))
    if len(carry) != 1:
        raise InvalidGraphError(f"after {after}: layers disagree on what they hand on: {sorted(carry)}")
    return graph


def _verify_program(graph: OpGraph, after: str) -> None:
    if graph in _verified:
        return
    known: set[Value] = set(graph.inputs)
    owned: set[tuple[str, str]] = set()

    def where() -> str:
        return f"after {after}: {node.scope or 'layer'}: {node.op.label}"

    for node in graph.nodes:
        for value in node.inputs:
            if value not in known:
                if not nx.is_directed_acyclic_graph(graph.network):
                    raise InvalidGraphError(f"after {after}: the ops form a cycle")
                raise InvalidGraphError(f"{where()} reads {value.name or 'a value'} before it is written")
        shapes = [result.axes for result in node.op.results(*node.inputs)]
        if shapes != [value.axes for value in node.outputs]:
            raise InvalidGraphError(f"{where()} has outputs of other shapes than its op gives")
        for value in node.outputs:
            if value in known:
                raise InvalidGraphError(f"{where()} writes {value.name or 'a value'} twice")
            known.add(value)
        for weight in node.op.weights():
            if (node.scope, weight.path) in owned:
                raise InvalidGraphError(f"{where()}: {weight.path} is owned twice")
            owned.add((node.scope, weight.path))
    for value in graph.outputs:
        if value not in known:
            raise InvalidGraphError(f"after {after}: an output is never written")
    read = {value for node in graph.nodes for value in node.inputs} | set(graph.outputs)
    for node in graph.nodes:
        if not read & set(node.outputs):
            raise InvalidGraphError(f"after {after}: {node.op.label} is dead")
    _verified.add(graph)
