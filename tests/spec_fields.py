"""A strategy that draws layers from the registries: any kind with any of its fields, whoever added them, in small.

Most of what it draws means something: values are of the types that the fields have, and required fields are there.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Literal, get_args, get_origin

from hypothesis import strategies as st

from archc.elaborate.accepts import Owner, accepts, is_kind, is_part
from archc.elaborate.settings import ModelSettings
from archc.layers.kind import ChannelMixer, FieldInfo, Kind, Mixer, Part, fields_of

MIXERS = sorted(word for word, kind in Kind.known.items() if issubclass(kind, Mixer))
CHANNEL_MIXERS = sorted(word for word, kind in Kind.known.items() if issubclass(kind, ChannelMixer))
LIKELY = st.sampled_from([1, 2, 2, 2, 4, 4, 4, 4, 8, 3])
FRACTIONS = st.sampled_from(["1e-6", "0.001", "0.5", "1", "2", "1.25", "10"])
PROJECTIONS = ["q", "k", "v", "gate_up", "qkv"]


@st.composite
def layers(draw: st.DrawFn, words: list[str] = MIXERS, depth: int = 2) -> str:
    """One kind beside some of its fields: `mamba(d_state=4, expand=2)`."""
    word = draw(st.sampled_from(words))
    return word + draw(arguments(Kind.known[word], depth))


@st.composite
def arguments(draw: st.DrawFn, cls: Owner, depth: int) -> str:
    """`(...)` with what is required and a few others, or nothing."""
    given = []
    for info in fields_of(cls).values():
        if info.required or draw(st.integers(0, 4)) == 0:
            given.append(f"{info.name}={draw(values(info, depth))}")
    return f"({', '.join(given)})" if given else ""


@st.composite
def values(draw: st.DrawFn, info: FieldInfo, depth: int) -> str:
    """A value of one of the types that a field takes."""
    kind = draw(st.sampled_from(accepts(info)))
    if kind is type(None):
        return "none"
    if kind is bool:
        return draw(st.sampled_from(["true", "false"]))
    if kind is int:
        return str(draw(LIKELY))
    if kind is Fraction:
        return draw(FRACTIONS)
    if get_origin(kind) is Literal:
        return draw(st.sampled_from([str(choice) for choice in get_args(kind)]))
    if get_origin(kind) is tuple:
        return "[" + ", ".join(draw(st.lists(st.sampled_from(PROJECTIONS), min_size=1, max_size=3, unique=True))) + "]"
    assert is_part(kind) or is_kind(kind), f"{info.name}: draw a value of {kind}"
    if is_kind(kind):
        words = ["swiglu"] if depth == 0 else [word for word in CHANNEL_MIXERS if issubclass(Kind.known[word], kind)]
        return draw(layers(words, depth - 1))
    word = draw(st.sampled_from(sorted(word for word, part in Part.known.items() if issubclass(part, kind))))
    return word + draw(arguments(Part.known[word], depth - 1) if depth else st.just(""))


@st.composite
def models(draw: st.DrawFn, *, few: bool = False) -> str:
    """A spec of drawn layers; with `few`, of a few layers only, so that its model can be built."""
    mlp = draw(st.just("none") | layers(CHANNEL_MIXERS, 1))
    lines = ["vocab 16", f"d_model {draw(st.sampled_from([8, 16, 16]))}", f"mlp {mlp}"]
    for name in ("norm", "embed", "logits", "residual"):
        if draw(st.integers(0, 4)) == 0:
            lines.append(f"{name} {draw(values(fields_of(ModelSettings)[name], 1))}".replace(f"{name} {name}", name))
    lines += ["tied"] * draw(st.integers(0, 1))
    drawn = draw(st.lists(st.tuples(layers(), LIKELY), min_size=1, max_size=3))
    items = [f"{layer} x{count}" if draw(st.booleans()) else layer for layer, count in drawn]
    if draw(st.integers(0, 3)) == 0:
        lines.append(f"share g = {draw(layers())} + {draw(layers(CHANNEL_MIXERS, 0))}")
        items.append(draw(st.sampled_from(["g", f"{draw(layers())} <- g"])))
    if draw(st.integers(0, 3)) == 0:
        items.append(f"{draw(layers())} || {draw(layers())}")
    suffix = draw(st.sampled_from(["", "", "moe(expert=gelu(4)) top1/4 every 2", "mlp none at [0]"]))
    repeat = draw(st.sampled_from(["", "x2"] if few else ["", "x2", "x3", "x1000000007"]))
    return "\n".join([*lines, f"block {repeat} < {', '.join(items)} > {suffix}"]) + "\n"
