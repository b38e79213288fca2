"""The groups that every table has a row for: the embedding, each distinct layer in rolled order, the head.

A layer is labelled by its sublayers (`mamba + moe`), and two kinds of one keyword but different fields are told apart by
a number (`attn`, `attn_2`), so that a label is a name which a spec could give with `let`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from archc.ir.graph import Graph, Layer, OpGraph, Scope, counts

EMBEDDING = "embedding"
HEAD = "norm + head"
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
    """The label of every distinct layer kind with its fields."""
    labels: dict[object, str] = {}
    for layer in counts(graph.stack):
        for scope in sublayers(layer):
            if scope.identity not in labels:
                keyword = keyword_of(scope)
                taken = sum(label.rpartition("_")[0] == keyword or label == keyword for label in labels.values())
                labels[scope.identity] = f"{keyword}_{taken + 1}" if taken else keyword
    return labels


def layer_label(layer: Layer, labels: dict[object, str]) -> str:
    """The layer as the spec writes it, over labels instead of keywords: `mamba + moe`, `attn || mamba + swiglu`."""
    words = OPERATOR.split(layer.text)
    words[::2] = [labels[scope.identity] for scope in sublayers(layer)]
    return "".join(words)


def keyword_of(scope: Scope) -> str:
    """The word of the language for a layer kind."""
    return str(getattr(scope.identity, "keyword", scope.class_name))
