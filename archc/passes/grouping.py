"""The groups that every table has a row for: the embedding, each distinct layer in rolled order, the head.

A layer is labelled by its sublayers (`mamba + swiglu(14336)`), and two kinds of one keyword but different fields are
told apart by a number (`attn_1`, `attn_2`), so that a label is what a spec says, or a name which it gives with `let`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from archc.ir.graph import Graph, Layer, OpGraph, Scope, counts
from archc.passes.spelling import spelled, words

EMBEDDING = "embedding"
HEAD = "norm + head"
SHORT = 16  # characters of a kind that needs no name
OPERATOR = re.compile(r"( \+ | \|\| )")


@dataclass(frozen=True, eq=False)
class Group:
    """Equal parts of a model: one op graph that runs `times` times. `prefix` leads the names of its tensors."""

    name: str
    times: int
    graph: OpGraph
    prefix: str = ""

    @property
    def is_layer(self) -> bool:
        return bool(self.prefix)


def groups(graph: Graph) -> tuple[Group, ...]:
    """The groups of a model, in order of first appearance."""
    names = sublayer_labels(graph)
    layers = (
        Group(layer_label(layer, names), times, layer.graph, "layers.*.")
        for layer, times in counts(graph.stack).items()
    )
    return (Group(EMBEDDING, 1, graph.prologue), *layers, Group(HEAD, 1, graph.epilogue))


def sublayers(layer: Layer) -> tuple[Scope, ...]:
    """The outermost modules of a layer, in order."""
    return tuple(scope for scope in layer.scopes if "." not in scope.name)


def sublayer_labels(graph: Graph) -> dict[object, str]:
    """The label of every distinct layer kind with its fields: what it is where that is short, else a name for it.

    No name is a word that another definition uses, for behind `let` that would no longer mean the kind.
    """
    scopes = {scope.identity: scope for layer in counts(graph.stack) for scope in sublayers(layer)}
    texts = {kind: spelled(kind) for kind in scopes}
    labels: dict[object, str] = {}
    for kind, text in texts.items():
        keyword = str(getattr(kind, "keyword", text))
        elsewhere = any(keyword in words(other) for other in texts.values() if other != text)
        number = 1 + sum(label.startswith(f"{keyword}_") for label in labels.values())
        labels[kind] = text if len(text) <= SHORT else f"{keyword}_{number}" if elsewhere else keyword
    return labels


def layer_label(layer: Layer, labels: dict[object, str]) -> str:
    """The layer as the spec writes it, over labels instead of keywords: `mamba + moe`, `attn || mamba + swiglu`."""
    words = OPERATOR.split(layer.text)
    words[::2] = [labels[scope.identity] for scope in sublayers(layer)]
    return "".join(words)
