"""Caches of the emitted model: the NamedTuple of what a module keeps between tokens, read from its ops' states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
    """(type, shape, allocation) by field; the parts of attention's state are one field."""
    fields: dict[str, tuple[str, str, str]] = {}
    for state in states:
        name, _, part = state.name.partition(".")
        zeros = _zeros(state, names)
        shape = "[B, " + ", ".join(axis.name for axis in state.axes) + "]"
        if not part:
            fields[name] = ("Tensor", shape, zeros)
        elif name not in fields:
            record = names.use(".attention", "AttentionState")
            fields[name] = (record, f"k, v: {shape}", f"{record}({part}={zeros}")
        else:
            kind, comment, code = fields[name]
            fields[name] = (kind, comment, f"{code}, {part}={zeros}, length=length)")
    return fields


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
