"""Caches of the emitted model: the NamedTuple of what a module keeps between tokens, read from its ops' states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from archc.codegen.layout import statement
from archc.codegen.programs import BODY, Names
from archc.ir.size import Size
from archc.ir.values import State


@dataclass(frozen=True)
class CacheField:
    """One field of a cache: `conv: Tensor  # [B, d_conv - 1, d_inner]`."""

    name: str
    type: str
    comment: str


@dataclass(frozen=True)
class CacheView:
    """The NamedTuple that a module keeps between tokens, and how it is allocated."""

    name: str
    fields: tuple[CacheField, ...]
    allocation: str


def cache_view(owner: str, states: Sequence[State], children: Sequence[tuple[str, str]], names: Names) -> CacheView:
    """The cache of class `owner`: its ops' own states, and its children's caches (name, type)."""
    fields = {**_own_fields(states, names), **{name: (kind, "", _handed_on(name)) for name, kind in children}}
    name = f"{owner}Cache"
    allocation = f"{name}({', '.join(f'{field}={code}' for field, (_, _, code) in fields.items())})"
    return CacheView(
        name,
        tuple(CacheField(field, kind, comment) for field, (kind, comment, _) in fields.items()),
        statement(f"return {allocation}", BODY),
    )


def _own_fields(states: Sequence[State], names: Names) -> dict[str, tuple[str, str, str]]:
    """(type, shapes, allocation) by field; states of one record are one field."""
    fields: dict[str, tuple[str, str, str]] = {}
    for field, group in groupby(states, key=lambda state: state.name.partition(".")[0]):
        held = list(group)
        zeros = [_zeros(state, names) for state in held]
        if held[0].record == ("", ""):
            ((state,), (zero,)) = held, zeros
            fields[field] = ("Tensor", _shape(state), zero)
            continue
        record = names.use(*held[0].record)
        parts = [state.name.partition(".")[2] for state in held]
        shapes: dict[str, list[str]] = {}
        for part, state in zip(parts, held, strict=True):
            shapes.setdefault(_shape(state), []).append(part)
        comment = "; ".join(f"{', '.join(same)}: {shape}" for shape, same in shapes.items())
        made = ", ".join(f"{part}={zero}" for part, zero in zip(parts, zeros, strict=True))
        fields[field] = (record, comment, f"{record}({made}, length=length)")
    return fields


def _shape(state: State) -> str:
    return "[B, " + ", ".join(axis.name for axis in state.axes) + "]"


def _zeros(state: State, names: Names) -> str:
    sizes = ", ".join(size_code(axis.size) for axis in state.axes)
    dtype = "dtype"
    if state.dtype == "state":
        dtype = f"{names.use('.precision', 'promote')}(dtype)"
    return f"torch.zeros(batch, {sizes}, dtype={dtype}, device=length.device)"


def size_code(size: Size) -> str:
    """A size as Python: its value, or an expression over `context`."""
    try:
        return str(size.value)
    except KeyError:
        return str(size)


def _handed_on(child: str) -> str:
    return f"self.{child}.init_cache(batch, context, dtype, length)"
