"""Layers and ends as op graphs: norms, residual adds and the programs of the layer kinds, put together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import reduce
from itertools import chain, count

from archc.elaborate.names import class_name
from archc.elaborate.settings import ModelSettings, Residual
from archc.ir.body import Body
from archc.ir.graph import Layer, OpGraph, Shared
from archc.ir.op import MisfitError
from archc.ir.values import BATCH, TIME, Axis, Init, Value, constant_axis
from archc.layers.kind import Kind, Norm, Placement
from archc.layers.parts import Concat, ShareFields
from archc.ops.adaptive import AdaptiveEmbedding, AdaptiveHead
from archc.ops.attention_kv import KV
from archc.ops.ends import Embedding, TiedHead
from archc.ops.linear import linear
from archc.ops.pointwise import Scale, SoftCap, Upcast, add, concat
from archc.ops.prefix import Prefix, WithoutPrefix, own_tokens

FINAL_NORM = "norm"
HEAD = "lm_head"
EMBED = "embed"


@dataclass(frozen=True)
class SharedUse:
    """One use of a shared module: its copy number `copy`, with sublayers that are stored once a copy."""

    name: str
    copies: int
    copy: int
    fields: ShareFields
    sublayers: tuple[tuple[Kind, ...], ...]


@dataclass(frozen=True)
class Sublayer:
    """One norm and one residual around parallel branches; `share` feeds the norm, or stands alone without branches."""

    kinds: tuple[Kind, ...]
    share: SharedUse | None = None


@dataclass(frozen=True)
class LayerPlan:
    """A layer, bound: its sublayers in order."""

    sublayers: tuple[Sublayer, ...]
    norm: Norm
    residual: Residual
    reads_embedding: bool = False  # some layer of the model does, and so all are handed the embedded tokens
    hands_keys: bool = False  # some layer reuses keys and values, and so all hand on the latest

    @property
    def kinds(self) -> Iterator[Kind]:
        """Its kinds in the order in which they run, those of shared modules among them."""
        for sublayer in self.sublayers:
            for kinds in sublayer.share.sublayers if sublayer.share else ():
                yield from kinds
            yield from sublayer.kinds


def d_model_axis(settings: ModelSettings) -> Axis:
    return constant_axis("d_model", settings.d_model)


def build_layer(plan: LayerPlan, d_model: Axis, text: str) -> Layer:
    """`h = h + kind(norm(h))` for each sublayer."""
    b = Body(d_model)
    start = stream = b.call_it(Value((BATCH, TIME, d_model)), "h")
    embed = b.call_it(Value((BATCH, TIME, d_model)), EMBED)
    if plan.hands_keys or any(kind.reused_keys(d_model.size.value) for kind in plan.kinds):
        b.carried[KV] = b.call_it(Value((BATCH, TIME), type="kv"), KV)
    carried = tuple(b.carried.values())
    using: list[str] = []
    for names, sublayer in zip(scope_names(plan.sublayers), plan.sublayers, strict=True):
        source = stream
        if sublayer.share is not None:
            using.append(_use_name(sublayer.share.name, using))
            fed = run_shared(b, using[-1], sublayer.share, plan, stream, embed)
            if not sublayer.kinds:
                stream = fed if sublayer.share.fields.residual else b.call_it(add(b, stream, fed), "h")
                continue
            source = b.call_it(add(b, stream, fed), "fed")
        placement = placement_of(sublayer.kinds, plan.residual)
        x, branch = run_branches(b, names, sublayer.kinds, plan.norm, placement, source, "x")
        if plan.residual.branch is not None:
            branch = b.one(Scale(factor=float(plan.residual.branch)), branch)
        onto = x if plan.residual.of == "normed" else stream
        if plan.residual.stream is not None:
            onto = b.one(Scale(factor=float(plan.residual.stream)), onto)
        stream = b.call_it(add(b, onto, b.call_it(branch, "delta")), "h")
        if placement == "post":
            stream = b.call_it(plan.norm.apply(b, f"{names[0]}_norm", stream), "h")
    inputs = (start, *carried, embed) if plan.reads_embedding else (start, *carried)
    graph, scopes = b.finish(inputs, (stream, *b.carried.values()))
    return Layer(graph, scopes, text, plan)


def placement_of(kinds: tuple[Kind, ...], residual: Residual) -> Placement:
    """Where a sublayer is normed: as its branches say, or else the setting."""
    said = {kind.placement for kind in kinds if kind.placement is not None}
    if len(said) > 1:
        raise MisfitError("parallel branches share one norm, so they cannot differ in its placement")
    if not said:
        return residual.norm
    placement = said.pop()
    if residual.dtype == "fp32" and placement in ("post", "out"):
        raise MisfitError(f"with placement={placement} a sublayer reads the stream itself, so it cannot be fp32")
    return placement


def run_branches(
    b: Body, names: list[str], kinds: tuple[Kind, ...], norm: Norm, placement: Placement, source: Value, called: str
) -> tuple[Value, Value]:
    """What parallel branches read, `called` so, and the sum of what they give, normed where `placement` says."""
    x = source
    if placement in ("pre", "sandwich"):
        x = b.call_it(norm.apply(b, f"{names[0]}_norm", source), called)
    branches = [kind.run(b, name, x) for name, kind in zip(names, kinds, strict=True)]
    branch = reduce(lambda sum_so_far, other: add(b, sum_so_far, other), branches)
    if placement in ("out", "sandwich"):
        branch = norm.apply(b, f"{names[0]}_out_norm", branch)
    return x, branch


def _use_name(name: str, taken: list[str]) -> str:
    """What a layer calls its use of a shared module: `g`, and `g_2` for a second one."""
    return next(n for n in chain([name], (f"{name}_{i}" for i in count(2))) if n not in taken)


def run_shared(b: Body, name: str, use: SharedUse, plan: LayerPlan, stream: Value, embed: Value) -> Value:
    """The output of one use of a shared module, as `name`; its own projection belongs to the using layer."""
    shared = Shared(use.name, use.copies, use.copy)
    doc = f"The shared module `{use.name}`: stored once, used by several layers."
    with b.scope(name, class_name(use.name), doc, replace(use, copy=0), shared=shared):
        x = stream
        if isinstance(use.fields.in_, Concat):
            values = {"h": stream, "embed": embed}
            x = b.call_it(concat(b, values[use.fields.in_.first], values[use.fields.in_.second]), "x")
        for names, kinds in zip(scope_names(map(Sublayer, use.sublayers)), use.sublayers, strict=True):
            placement = placement_of(kinds, plan.residual)
            _, y = run_branches(b, names, kinds, plan.norm, placement, x, "normed")
            x = b.call_it(y if use.fields.residual is None else add(b, x, y), "x")
            if placement == "post":
                x = b.call_it(plan.norm.apply(b, f"{names[0]}_norm", x), "x")
    if use.fields.out is None:
        return x
    return b.call_it(linear(b, f"{name}_out", x, to=b.d_model), "fed")


def scope_names(sublayers: Iterable[Sublayer]) -> list[list[str]]:
    """Module names of each sublayer's branches: mixer, mlp; a second mixer of the layer is mixer_2."""
    taken: dict[str, int] = {}
    names: list[list[str]] = []
    for sublayer in sublayers:
        names.append([])
        for kind in sublayer.kinds:
            taken[kind.scope] = taken.get(kind.scope, 0) + 1
            names[-1].append(kind.scope if taken[kind.scope] == 1 else f"{kind.scope}_{taken[kind.scope]}")
    return names


def build_prologue(settings: ModelSettings, vocab: Axis, d_model: Axis) -> OpGraph:
    """Tokens to the residual stream."""
    b = Body(d_model)
    length = TIME if settings.prefix is None else own_tokens(settings.prefix)
    tokens = b.call_it(Value((BATCH, length), type="index"), "tokens")
    adaptive = settings.embed.adaptive
    if adaptive is None or adaptive.div == 1:
        h = b.one(Embedding(vocab=vocab, d_model=d_model), tokens)
    else:
        op = AdaptiveEmbedding(vocab=vocab, d_model=d_model, cutoffs=adaptive.cutoffs, div=adaptive.div)
        h = b.one(op, tokens)
    if settings.embed.scale is not None:
        h = b.one(Scale(factor=float(settings.embed.scale)), h)
    if settings.prefix is not None:
        h = b.one(Prefix(size=constant_axis("prefix", settings.prefix), d_model=d_model), b.call_it(h, "h"))
    if settings.residual.dtype == "fp32":
        h = b.one(Upcast(), h)
    return b.finish((tokens,), (b.call_it(h, "h"),))[0]


def build_epilogue(settings: ModelSettings, vocab: Axis, d_model: Axis) -> OpGraph:
    """The residual stream to logits."""
    b = Body(d_model)
    stream = b.call_it(Value((BATCH, TIME, d_model)), "h")
    h = stream
    if settings.prefix is not None:
        h = b.call_it(b.one(WithoutPrefix(size=settings.prefix), h), "h")
    if settings.residual.norm != "post":  # there the last sublayer ends in one
        h = b.call_it(settings.norm.apply(b, FINAL_NORM, h), "h")
    adaptive = settings.embed.adaptive
    if adaptive is not None:
        op = AdaptiveHead(vocab=vocab, d_model=d_model, cutoffs=adaptive.cutoffs, div=adaptive.div)
        logits = b.one(op, h)
    elif settings.is_tied:
        logits = b.one(TiedHead(vocab=vocab), h)
    else:
        logits = linear(b, HEAD, h, to=vocab, init=Init("normal_", (0.02,)))
    if settings.logits.scale is not None:
        logits = b.one(Scale(factor=float(settings.logits.scale)), logits)
    if settings.logits.cap is not None:
        logits = b.one(SoftCap(cap=float(settings.logits.cap)), logits)
    return b.finish((stream,), (b.call_it(logits, "logits"),))[0]
