"""Layers and ends as op graphs: norms, residual adds and the programs of the layer kinds, put together."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

from archc.elaborate.settings import ModelSettings
from archc.ir.body import Body
from archc.ir.graph import Layer, OpGraph
from archc.ir.values import BATCH, TIME, Axis, Init, Value, constant_axis
from archc.layers.kind import Kind
from archc.layers.parts import Norm
from archc.ops.ends import Embedding, TiedHead
from archc.ops.linear import linear
from archc.ops.pointwise import Scale, SoftCap, Upcast, add

FINAL_NORM = "norm"
HEAD = "lm_head"


@dataclass(frozen=True)
class LayerPlan:
    """A layer, bound: its sublayers in order, each of one branch or several, with one norm and residual each."""

    sublayers: tuple[tuple[Kind, ...], ...]
    norm: Norm
    branch_scale: float | None


def d_model_axis(settings: ModelSettings) -> Axis:
    return constant_axis("d_model", settings.d_model)


def build_layer(plan: LayerPlan, d_model: Axis, text: str) -> Layer:
    """`h = h + kind(norm(h))` for each sublayer."""
    b = Body(d_model)
    start = stream = b.call_it(Value((BATCH, TIME, d_model)), "h")
    for names, kinds in zip(scope_names(plan.sublayers), plan.sublayers, strict=True):
        normed = b.call_it(plan.norm.apply(b, f"{names[0]}_norm", stream), "x")
        branches = [kind.run(b, name, normed) for name, kind in zip(names, kinds, strict=True)]
        branch = reduce(lambda sum_so_far, other: add(b, sum_so_far, other), branches)
        if plan.branch_scale is not None:
            branch = b.one(Scale(factor=plan.branch_scale), branch)
        stream = b.call_it(add(b, stream, b.call_it(branch, "delta")), "h")
    graph, scopes = b.finish((start,), (stream,))
    return Layer(graph, scopes, text, plan)


def scope_names(sublayers: tuple[tuple[Kind, ...], ...]) -> list[list[str]]:
    """Module names of each sublayer's branches: mixer, mlp; a second mixer of the layer is mixer_2."""
    taken: dict[str, int] = {}
    names: list[list[str]] = []
    for kinds in sublayers:
        names.append([])
        for kind in kinds:
            taken[kind.scope] = taken.get(kind.scope, 0) + 1
            names[-1].append(kind.scope if taken[kind.scope] == 1 else f"{kind.scope}_{taken[kind.scope]}")
    return names


def build_prologue(settings: ModelSettings, vocab: Axis, d_model: Axis) -> OpGraph:
    """Tokens to the residual stream."""
    b = Body(d_model)
    tokens = b.call_it(Value((BATCH, TIME), type="index"), "tokens")
    h = b.one(Embedding(vocab=vocab, d_model=d_model), tokens)
    if settings.embed.scale is not None:
        h = b.one(Scale(factor=float(settings.embed.scale)), h)
    if settings.residual.dtype == "fp32":
        h = b.one(Upcast(), h)
    return b.finish((tokens,), (b.call_it(h, "h"),))[0]


def build_epilogue(settings: ModelSettings, vocab: Axis, d_model: Axis) -> OpGraph:
    """The residual stream to logits."""
    b = Body(d_model)
    stream = b.call_it(Value((BATCH, TIME, d_model)), "h")
    h = b.call_it(settings.norm.apply(b, FINAL_NORM, stream), "h")
    if settings.is_tied:
        logits = b.one(TiedHead(vocab=vocab), h)
    else:
        logits = linear(b, HEAD, h, to=vocab, init=Init("normal_", (0.02,)))
    if settings.logits.scale is not None:
        logits = b.one(Scale(factor=float(settings.logits.scale)), logits)
    if settings.logits.cap is not None:
        logits = b.one(SoftCap(cap=float(settings.logits.cap)), logits)
    return b.finish((stream,), (b.call_it(logits, "logits"),))[0]
