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

from archc.hub.rules import Fact, whole
from archc.ir.graph import Graph, Layer, Node, OpGraph, Scope, counts, shared_scope, unrolled
from archc.ir.region import Region

MAX_LAYERS = 100_000  # no checkpoint has more, and a rolled stack may say a thousand million
# Settings that are facts under another name: what ir.Settings has, and the channel mixer, a sublayer like any other.
_ELSEWHERE = {"vocab", "d_model", "context", "tied", "embed.tied", "residual.dtype", "mlp"}
_NOTHING = object()


class IrregularError(Exception):
    """The graph says two things under one name, such as two windows; no config.json here can."""


@dataclass
class GraphFacts:
    """`defaults` are values that a family need not know of. The fact `layers` has the words of every layer.

    `tensors` are the names of the ends and of each distinct layer; `uses` is (layer, copy) of every use of the shared
    module `share`.
    """

    values: dict[str, Fact] = field(default_factory=dict)
    defaults: dict[str, Fact] = field(default_factory=dict)
    tensors: tuple[tuple[str, ...], ...] = ()
    share: str = ""
    uses: tuple[tuple[int, int], ...] = ()

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
    words = {layer: _say_layer(found, layer, settings.identity) for layer in times}
    layers = list(unrolled(graph.stack))
    listed = tuple(words[layer] for layer in layers)
    found.say("layers", listed, listed)
    _say_uses(found, layers)
    found.tensors = tuple(dict.fromkeys((_end_tensors(graph), *(_layer_tensors(layer) for layer in times))))
    return found


def nodes(graph: OpGraph) -> Iterator[Node]:
    """The ops of a program, those inside fused regions too."""
    for node in graph.nodes:
        if isinstance(node.op, Region):
            yield from nodes(node.op.inner)
        else:
            yield node


def _end_tensors(graph: Graph) -> tuple[str, ...]:
    """Canonical names outside of the layers."""
    ends = chain(nodes(graph.prologue), nodes(graph.epilogue))
    return tuple(weight.path for node in ends for weight in node.op.weights())


def _layer_tensors(layer: Layer) -> tuple[str, ...]:
    """Canonical names, `*` for the layer's index, a last `[*]` for the expert's index of a stacked tensor.

    Where the layer uses a shared module, its index is `{use}`, the module's name `{share}`, the copy `{copy}`.
    """
    shares = {scope.name: scope for scope in layer.scopes if scope.shared is not None}
    index = "{use}" if shares else "*"
    names = []
    for node in nodes(layer.graph):
        root, _, inside = node.scope.partition(".")
        where = [f"layers.{index}", node.scope]
        if root in shares:
            owned = shared_scope(layer, node) is None
            where = [f"layers.{index}.{{share}}_use" if owned else "{share}.{copy}", inside]
        for weight in node.op.weights():
            path, *rest = weight.path.split(".")
            path = "{share}_out" if path.removesuffix("_out") in shares else path
            name = ".".join(filter(None, (*where, path, *rest)))
            names.append(name + "[*]" * (weight.axes[0].name == "n_experts" and len(weight.axes) == 3))
    return tuple(names)


def _say_settings(found: GraphFacts, settings: object) -> None:
    """Facts of the whole model."""
    for name, value, default in _fields(settings):
        if name not in _ELSEWHERE:
            _say(found, name, value, default, {})
    for path in _ELSEWHERE & found.values.keys():
        del found.values[path]


def _say_layer(found: GraphFacts, layer: Layer, settings: object) -> str:
    """Facts of one layer; returns the words of its sublayers, as `attn + swiglu`."""
    plan: Any = layer.identity
    for name, value, default in _fields(plan):
        if name not in ("sublayers", "reads_embedding") and value != getattr(settings, name, _NOTHING):
            _say(found, f"layer.{name}", value, default, {})
    for scope in layer.scopes:
        if scope.shared is not None:
            _say_share(found, scope)
            continue
        word = _keyword(scope.identity)
        sizes = _sizes([node for node in nodes(layer.graph) if node.scope == scope.name])
        for name, size in sizes.items():
            found.say(f"{word}.{name}", size, size)
        for name, value, default in _fields(scope.identity):
            _say(found, f"{word}.{name}", value, default, sizes)
    return " + ".join(map(_word, plan.sublayers))


def _say_share(found: GraphFacts, scope: Scope) -> None:
    """Facts of a shared module: its sublayers, its copies, how it is wired. Its name says nothing."""
    use: Any = scope.identity
    if found.share not in ("", use.name):
        raise IrregularError("share")
    found.share = use.name
    found.say("share.copies", use.copies)
    found.say("share.layer", " + ".join(" || ".join(map(_keyword, kinds)) for kinds in use.sublayers))
    for name, value, default in _fields(use.fields):
        _say(found, f"share.{name.strip('_')}", value, default, {})


def _say_uses(found: GraphFacts, layers: list[Layer]) -> None:
    """Which layer runs which copy of the shared module."""
    scopes = [(i, scope.shared) for i, layer in enumerate(layers) for scope in layer.scopes]
    found.uses = tuple((i, shared.copy) for i, shared in scopes if shared is not None)
    if any(copy != nth % whole(found.values, "share.copies") for nth, (_, copy) in enumerate(found.uses)):
        raise IrregularError("share.copies")


def _word(sublayer: Any) -> str:
    """`attn`; of parallel branches `attn || mamba`, fed by a shared module `attn <- share`: the word of a family."""
    branches = " || ".join(map(_keyword, sublayer.kinds))
    return branches if sublayer.share is None else f"{branches} <- share".strip()


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
    if isinstance(value, tuple) and all(isinstance(one, str) for one in value):
        return ", ".join(value)
    return _keyword(value)


def _keyword(value: object) -> str:
    return str(getattr(value, "keyword", "") or type(value).__name__)
