"""The groups that every table has a row for: embedding, each distinct layer in rolled order, shared modules, head.

A layer is labelled by its sublayers (`mamba + swiglu(14336)`), and two kinds of one keyword but different fields are
told apart by a number (`attn_1`, `attn_2`), so that a label is what a spec says, or a name which it gives with `let`.

Layers that differ only in which copy of a shared module they use are one group. What is stored once for several layers
has a group of its own (`share g x2`) that holds weights alone: state and FLOPs belong to the layers that use it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import count
from typing import Any

from archc.ir.graph import Graph, Layer, Node, OpGraph, Scope, counts, shared_modules, shared_scope
from archc.passes.spelling import copies_text, spelled, spelled_share, words

EMBEDDING = "embedding"
HEAD = "norm + head"
SHORT = 16  # characters of a kind that needs no name
USE = "_use"  # behind a shared module's name: what the using layer stores for it


NOTHING = OpGraph((), (), ())


@dataclass(frozen=True, eq=False)
class Group:
    """Equal parts of a model, `times` of them: the nodes that each runs, and those whose weights each stores.

    A stored node comes with the path of its module, `layers.*.mixer`; `*` stands for an index. `uses` is how often all
    of what is stored runs, more than `times` for a shared module.
    """

    name: str
    times: int
    uses: int
    nodes: tuple[Node, ...]
    stored: tuple[tuple[str, Node], ...]
    is_layer: bool = False
    layers: tuple[Layer, ...] = ()  # that are in it, or use it if it is shared
    program: OpGraph = NOTHING  # that each part runs

    def within(self, held: Mapping[Layer, int]) -> int:
        """How many of `held` layers are in it; of a shared module, all its copies if any layer uses it."""
        n = sum(held.get(layer, 0) for layer in self.layers)
        return n if self.is_layer else self.times * (n > 0)


@lru_cache(maxsize=8)  # every pass asks
def groups(graph: Graph) -> tuple[Group, ...]:
    """The groups of a model, in order of first appearance."""
    labels = sublayer_labels(graph)
    layers: dict[object, Group] = {}
    for layer, times in counts(graph.stack).items():
        key = layer.text, tuple(scope.identity for scope in layer.scopes)
        stored = tuple((_home(layer, node), node) for node in layer.graph.nodes if not shared_scope(layer, node))
        group = Group(layer_label(layer, labels), times, times, layer.graph.nodes, stored, True, (layer,), layer.graph)
        known = layers.get(key)
        if known is not None:
            times, ours = known.times + times, (*known.layers, layer)
            group = replace(known, times=times, uses=times, layers=ours)
        layers[key] = group
    return _end(EMBEDDING, graph.prologue), *layers.values(), *_shared(graph), _end(HEAD, graph.epilogue)


def _end(name: str, graph: OpGraph) -> Group:
    return Group(name, 1, 1, graph.nodes, tuple((node.scope, node) for node in graph.nodes), program=graph)


def _shared(graph: Graph) -> Iterator[Group]:
    """What is stored once, or a few copies of it, and used by many layers."""
    for name, (copies, nodes) in shared_modules(graph).items():
        using = [
            (layer, times)
            for layer, times in counts(graph.stack).items()
            for scope in layer.scopes
            if scope.shared is not None and scope.shared.name == name
        ]
        stored = tuple((f"{name}.*.{node.scope.partition('.')[2]}".rstrip("."), node) for node in nodes)
        label = f"share {name}{copies_text(copies)}"
        uses = sum(times for _, times in using)
        yield Group(label, copies, uses, (), stored, layers=tuple(dict.fromkeys(layer for layer, _ in using)))


def _home(layer: Layer, node: Node) -> str:
    """Where a layer keeps the weights of `node`: `layers.*.mixer`, `layers.*.g_use.mlp`."""
    root, _, inside = node.scope.partition(".")
    if node.per_use and any(scope.name == root and scope.shared for scope in layer.scopes):
        root += USE
    return ".".join(filter(None, ("layers.*", root, inside)))


def chooses(node: Node, nodes: Iterable[Node]) -> bool:
    """Whether the result of `node` serves to choose: one of `nodes` reads it and makes indices, or is `node` itself."""
    read = set(node.outputs)
    readers = (reader for reader in nodes if reader is node or read & set(reader.inputs))
    return any(value.type == "index" for reader in readers for value in reader.outputs)


# --- labels ----------------------------------------------------------------------------------------


def sublayers(layer: Layer) -> tuple[Scope, ...]:
    """The outermost modules of a layer, in order."""
    return tuple(scope for scope in layer.scopes if "." not in scope.name)


def shares(graph: Graph) -> dict[str, Scope]:
    """One use of every shared module, by name, in order of first use."""
    found = (scope for layer in counts(graph.stack) for scope in sublayers(layer))
    return {scope.shared.name: scope for scope in reversed([*found]) if scope.shared is not None}


def norm_of(graph: Graph) -> Any:
    """The norm that the spec sets."""
    settings: Any = graph.settings.identity
    return settings.norm


@lru_cache(maxsize=8)
def sublayer_labels(graph: Graph) -> dict[object, str]:
    """The label of every distinct layer kind with its fields: what it is where that is short, else a name for it.

    No name is a word that another definition uses, for behind `let` that would no longer mean the kind; nor is one the
    name of a shared module.
    """
    every = [scope for layer in counts(graph.stack) for scope in sublayers(layer)]
    named = {scope.shared.name for scope in every if scope.shared is not None}
    norm = norm_of(graph)
    texts = {scope.identity: spelled(scope.identity, norm) for scope in every if scope.shared is None}
    within = {word for scope in every if scope.shared for word in words(spelled_share(scope, norm))}
    labels: dict[object, str] = {}
    for kind, text in texts.items():
        keyword = str(getattr(kind, "keyword", text))
        elsewhere = keyword in within | named or any(keyword in words(t) for t in texts.values() if t != text)
        numbers = (f"{keyword}_{n}" for n in count(1))
        free = next(label for label in numbers if label not in named and label not in labels.values())
        short = len(text) <= SHORT and not words(text) & named
        labels[kind] = text if short else free if elsewhere else keyword
    return labels


def layer_label(layer: Layer, labels: dict[object, str]) -> str:
    """The layer as the spec writes it, over labels instead of keywords: `mamba + moe`, `attn || mamba <- g`."""
    scopes = iter(sublayers(layer))

    def sublayer(text: str) -> str:
        branches, _, feed = text.partition(" <- ")
        fed = f" <- {_label(next(scopes), labels)}" if feed else ""  # what is fed runs first
        return " || ".join(_label(next(scopes), labels) for _ in branches.split(" || ")) + fed

    return " + ".join(map(sublayer, layer.text.split(" + ")))


def _label(scope: Scope, labels: dict[object, str]) -> str:
    return labels[scope.identity] if scope.shared is None else scope.shared.name
