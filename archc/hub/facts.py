"""What a graph says, as facts under the names that the families' tables use.

`ir` knows nothing of kinds, and hub may not import `layers`; so kinds and settings are read as what they are to
everyone, frozen dataclasses with a keyword: `attn.window` is the field `window` of the kind `attn`, `logits.cap` the
field `cap` of the setting `logits`. Sizes are read from the axes of the kind's ops, where every default is resolved
already. A field that no table knows of is a fact all the same, so that a new one rules families out by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from fractions import Fraction
from itertools import chain
from typing import Any

from archc.hub.rules import Fact
from archc.ir.graph import Graph, Layer, Node, OpGraph, counts, unrolled
from archc.ir.region import Region

MAX_LAYERS = 100_000  # no checkpoint has more, and a rolled stack may say a thousand million
# Settings that are facts under another name: what ir.Settings has, and the channel mixer, a sublayer like any other.
_ELSEWHERE = {"vocab", "d_model", "context", "tied", "embed.tied", "residual.dtype", "mlp"}


class IrregularError(Exception):
    """The graph says two things under one name, such as two windows; no config.json here can."""


@dataclass
class GraphFacts:
    """`defaults` are values that a family need not know of; `layers` the words of each layer's sublayers, in order."""

    values: dict[str, Fact] = field(default_factory=dict)
    defaults: dict[str, Fact] = field(default_factory=dict)
    layers: tuple[tuple[str, ...], ...] = ()
    tensors: tuple[str, ...] = ()

    def say(self, path: str, value: Fact, default: Fact = None) -> None:
        """Record a fact. Raises IrregularError if it was another one before."""
        if self.values.setdefault(path, value) != value:
            raise IrregularError(path)
        self.defaults[path] = default


def facts_of(graph: Graph) -> GraphFacts:
    """Everything that a config.json could have to say of `graph`. Raises IrregularError."""
    settings = graph.settings
    found = GraphFacts()
    times = counts(graph.stack)
    n_layers = sum(times.values())
    if n_layers > MAX_LAYERS:
        raise IrregularError("n_layers")
    _say_settings(found, settings.identity)
    found.say("vocab", settings.vocab.size.value)
    found.say("d_model", settings.d_model.size.value)
    found.say("context", settings.context, settings.context)
    found.say("n_layers", n_layers)
    found.say("tied", settings.tied, False)
    found.say("residual.fp32", settings.residual_fp32, False)
    words = {layer: _say_layer(found, layer) for layer in times}
    found.layers = tuple(words[layer] for layer in unrolled(graph.stack))
    found.tensors = tuple(dict.fromkeys(_tensors(graph)))
    return found


def nodes(graph: OpGraph) -> Iterator[Node]:
    """The ops of a program, those inside fused regions too."""
    for node in graph.nodes:
        if isinstance(node.op, Region):
            yield from nodes(node.op.inner)
        else:
            yield node


def _tensors(graph: Graph) -> Iterator[str]:
    """Canonical names, `*` for a layer's index and a last `[*]` for the expert's index of a stacked tensor."""
    ends = chain(nodes(graph.prologue), nodes(graph.epilogue))
    yield from (weight.path for node in ends for weight in node.op.weights())
    for layer in counts(graph.stack):
        for node in nodes(layer.graph):
            for weight in node.op.weights():
                name = ".".join(filter(None, ("layers.*", node.scope, weight.path)))
                yield name + "[*]" * (weight.axes[0].name == "n_experts" and len(weight.axes) == 3)


def _say_settings(found: GraphFacts, settings: object) -> None:
    """Facts of the whole model."""
    for name, value, default in _fields(settings):
        if name not in _ELSEWHERE:
            _say(found, name, value, default, {})
    for path in _ELSEWHERE & found.values.keys():
        del found.values[path]


def _say_layer(found: GraphFacts, layer: Layer) -> tuple[str, ...]:
    """Facts of one layer; returns the words of its sublayers."""
    plan: Any = layer.identity
    for name, value, default in _fields(plan):
        if name != "sublayers":
            _say(found, name if name == "norm" else f"layer.{name}", value, default, {})
    for scope in layer.scopes:
        word = _keyword(scope.identity)
        sizes = _sizes([node for node in nodes(layer.graph) if node.scope == scope.name])
        for name, size in sizes.items():
            found.say(f"{word}.{name}", size, size)
        for name, value, default in _fields(scope.identity):
            _say(found, f"{word}.{name}", value, default, sizes)
    return tuple(_word(sublayer) for sublayer in plan.sublayers)


def _word(sublayer: Any) -> str:
    """`attn`; of parallel branches `attn || mamba`, of a shared module `<- g`: a family has to have that very word."""
    branches = " || ".join(map(_keyword, sublayer.kinds))
    return branches if sublayer.share is None else f"{branches} <- {sublayer.share.name}".strip()


def _say(found: GraphFacts, path: str, value: object, default: object, sizes: dict[str, int]) -> None:
    """The fact that a field has `value`, and the fields of that value if it has some."""
    name, plain_default = path.rpartition(".")[2], _plain(default)
    if name in sizes:
        found.defaults[f"{path.partition('.')[0]}.{name}"] = plain_default  # a size that some config.json has to say
        return
    if not is_dataclass(value):
        found.say(path, _plain(value), plain_default)
        return
    inner = list(_fields(value))
    if inner and all(field_name in sizes for field_name, _, _ in inner):
        return  # gqa(8, 8) and mha(8) are the same sizes
    found.say(path, _keyword(value), plain_default)
    for field_name, field_value, field_default in inner:
        _say(found, f"{path}.{field_name}", field_value, field_default, sizes)


def _sizes(inside: list[Node]) -> dict[str, int]:
    """The named axes of a kind's values and weights."""
    shapes = [value.axes for node in inside for value in (*node.inputs, *node.outputs)]
    shapes += [weight.axes for node in inside for weight in node.op.weights()]
    axes = {axis.name: axis for shape in shapes for axis in shape}
    sizes = {}
    for name, axis in axes.items():
        if name.isidentifier() and name not in ("B", "T", "rows", "d_model"):
            sizes[name] = axis.size.value
    return sizes


def _fields(value: object) -> Iterator[tuple[str, object, object]]:
    """(name, value, default) of the fields of a dataclass; a field without a default has none that could be assumed."""
    assert is_dataclass(value)
    for info in fields(value):
        yield info.name, getattr(value, info.name), None if info.default is MISSING else info.default


def _plain(value: object) -> Fact:
    """A field's value as JSON could write it."""
    if isinstance(value, Fraction):
        return float(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return _keyword(value)


def _keyword(value: object) -> str:
    return str(getattr(value, "keyword", "") or type(value).__name__)
