"""The op graph of a layer, and the rolled stack of layers that makes a model.

`OpGraph` is a small SSA program: nodes in topological order. `Stack` says "these layers, so many times" as a tree, so
that a thousand million layers cost nothing. networkx answers the questions about order and reach, here alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

import networkx as nx

from archc.ir.op import Op
from archc.ir.values import Axis, Value


@dataclass(frozen=True, eq=False)
class Node:
    """One op applied to values. `scope` is the module that it belongs to: "" (the layer), "mixer", "mlp.shared"."""

    op: Op
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    scope: str = ""
    per_use: bool = False  # inside a shared module: its weights belong to the layer that uses it


@dataclass(frozen=True)
class Scope:
    """A module of the layer: the kind that wrote it, for its class name and docstring.

    `identity` compares equal exactly when two scopes are the same program with the same fields.
    """

    name: str
    class_name: str
    doc: str
    identity: object
    shared: Shared | None = None


@dataclass(frozen=True)
class Shared:
    """A module whose weights are stored once for all layers that use it; this use runs its copy number `copy`."""

    name: str
    copies: int
    copy: int


@dataclass(frozen=True, eq=False)
class OpGraph:
    """A program: `inputs -> nodes -> outputs`."""

    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    nodes: tuple[Node, ...]

    @cached_property
    def network(self) -> nx.DiGraph[int]:
        """Node indices, with an edge wherever one node reads what another wrote."""
        network: nx.DiGraph[int] = nx.DiGraph()
        network.add_nodes_from(range(len(self.nodes)))
        writer = {output: i for i, node in enumerate(self.nodes) for output in node.outputs}
        for i, node in enumerate(self.nodes):
            network.add_edges_from((writer[value], i) for value in node.inputs if value in writer)
        return network

    def consumers(self, value: Value) -> list[Node]:
        return [node for node in self.nodes if value in node.inputs]

    def producer(self, value: Value) -> Node | None:
        return next((node for node in self.nodes if value in node.outputs), None)

    def sole_consumer(self, value: Value) -> Node | None:
        """The one node that reads `value`, if there is just one and the program does not return it."""
        consumers = self.consumers(value)
        return consumers[0] if len(consumers) == 1 and value not in self.outputs else None

    def contract(self, members: tuple[Node, ...], region: Node) -> OpGraph:
        """The graph with `members` replaced by one node, in a valid order.

        Raises ValueError if a path leaves the members and comes back (the region would not be convex).
        """
        inside = {i for i, node in enumerate(self.nodes) if node in members}
        last, made = max(inside), {value for node in members for value in node.outputs}
        before = [node for i, node in enumerate(self.nodes[:last]) if i not in inside]
        if not any(made.intersection(node.inputs) for node in before):  # nothing between reads them: they can close up
            return replace(self, nodes=(*before, region, *self.nodes[last + 1 :]))
        below = set().union(*(nx.descendants(self.network, i) for i in inside))
        above = set().union(*(nx.ancestors(self.network, i) for i in inside))
        if (below & above) - inside:
            raise ValueError("a fused region must be convex")
        place = {id(node): i for i, node in enumerate(self.nodes)}
        place[id(region)] = max(inside)
        nodes = sorted((*(n for n in self.nodes if n not in members), region), key=lambda node: place[id(node)])
        graph = replace(self, nodes=tuple(nodes))
        return replace(self, nodes=tuple(nodes[i] for i in nx.lexicographical_topological_sort(graph.network)))


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer: its op graph, the modules in it, and how the spec writes it (for reports)."""

    graph: OpGraph
    scopes: tuple[Scope, ...]
    text: str
    identity: object = field(repr=False)


@dataclass(frozen=True)
class Repeat:
    """`count` passes over `body`."""

    count: int
    body: tuple[Stack, ...]


@dataclass(frozen=True)
class Use:
    """One layer of the stack."""

    layer: Layer


Stack = Repeat | Use


@dataclass(frozen=True, eq=False)
class Settings:
    """What belongs to the model and not to a layer; `identity` is all that the spec set, a dataclass of fields."""

    name: str
    vocab: Axis
    d_model: Axis
    context: int | None
    tied: bool
    residual_fp32: bool
    n_residual_adds: int
    prefix: int  # learned tokens in front of every document
    identity: object = field(repr=False)


@dataclass(frozen=True, eq=False)
class Graph:
    """A whole model: tokens -> `prologue` -> stack -> `epilogue` -> logits.

    The carry between layers is `(h,)` as written, and `(delta, residual)` once adds are fused with norms.
    """

    settings: Settings
    prologue: OpGraph
    stack: tuple[Stack, ...]
    epilogue: OpGraph
    defaults: tuple[str, ...] = ()  # defaults that the spec left open, as the report shows them
    carried: tuple[str, ...] = ()  # what every layer hands on behind the stream: `kv`, the latest keys and values
    invariants: tuple[str, ...] = ()  # what every layer reads beside the carry: `embed`, the embedded tokens


def uses(stack: tuple[Stack, ...], times: int = 1) -> Iterator[tuple[Layer, int]]:
    """(layer, how often the model runs it), in order of first appearance in the rolled text."""
    for element in stack:
        if isinstance(element, Use):
            yield element.layer, times
        else:
            yield from uses(element.body, times * element.count)


def counts(stack: tuple[Stack, ...]) -> dict[Layer, int]:
    """How often each distinct layer runs."""
    totals: dict[Layer, int] = {}
    for layer, times in uses(stack):
        totals[layer] = totals.get(layer, 0) + times
    return totals


def unrolled(stack: tuple[Stack, ...]) -> Iterator[Layer]:
    """Every layer in execution order. Only for stacks that will be built."""
    for element in stack:
        if isinstance(element, Use):
            yield element.layer
        else:
            for _ in range(element.count):
                yield from unrolled(element.body)


def shared_scope(layer: Layer, node: Node) -> Scope | None:
    """The shared module that stores the weights of `node`, if the layer does not."""
    if node.per_use:
        return None
    root = node.scope.split(".")[0]
    return next((scope for scope in layer.scopes if scope.name == root and scope.shared is not None), None)


def owned_nodes(layer: Layer) -> tuple[Node, ...]:
    """The nodes whose weights the layer itself stores."""
    return tuple(node for node in layer.graph.nodes if shared_scope(layer, node) is None)


def shared_modules(graph: Graph) -> dict[str, tuple[int, tuple[Node, ...]]]:
    """Every shared module by name: how many copies are stored, and the nodes whose weights one copy holds."""
    found: dict[str, tuple[int, tuple[Node, ...]]] = {}
    for layer in counts(graph.stack):
        for node in layer.graph.nodes:
            scope = shared_scope(layer, node)
            if scope is None or scope.shared is None or scope.shared.name in found:
                continue
            nodes = tuple(n for n in layer.graph.nodes if shared_scope(layer, n) is scope)
            found[scope.shared.name] = (scope.shared.copies, nodes)
    return found


def op_graphs(graph: Graph) -> Iterator[OpGraph]:
    """Every distinct op graph of a model: prologue, layers, epilogue."""
    yield graph.prologue
    for layer in counts(graph.stack):
        yield layer.graph
    yield graph.epilogue


def rewrite(graph: Graph, change: Callable[[OpGraph], OpGraph]) -> Graph:
    """The model with every op graph replaced by `change` of it."""
    changed = {layer: change(layer.graph) for layer in counts(graph.stack)}
    layers = {x: x if program is x.graph else replace(x, graph=program) for x, program in changed.items()}
    return replace(
        graph,
        prologue=change(graph.prologue),
        stack=map_layers(graph.stack, layers),
        epilogue=change(graph.epilogue),
    )


def map_layers(stack: tuple[Stack, ...], mapping: dict[Layer, Layer]) -> tuple[Stack, ...]:
    """The same stack over other layers."""
    return tuple(
        Use(mapping[element.layer])
        if isinstance(element, Use)
        else Repeat(element.count, map_layers(element.body, mapping))
        for element in stack
    )
