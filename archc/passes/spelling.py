"""A layer kind or part in the words of the language, from nothing but its fields."""

from __future__ import annotations

import re
from dataclasses import MISSING, Field, fields, is_dataclass
from fractions import Fraction
from typing import Any

WORD = re.compile(r"[a-z_][a-z_0-9]*")


def spelled(kind: Any) -> str:
    """A layer kind or part, with every field that differs from its default: `moe(expert=swiglu(14336)) top2/16`."""
    in_order = sorted(fields(kind), key=lambda f: bool(f.metadata.get("late")))  # as the language counts them
    given = {f.name: f for f in in_order if _required(f) or getattr(kind, f.name) != f.default}
    chosen = ""
    if {"top_k", "n_experts"} <= given.keys():
        chosen = f" top{kind.top_k}/{kind.n_experts}"
        del given["top_k"], given["n_experts"]
    words: list[str] = []
    for place, field in enumerate(given.values()):
        positional = _required(field) and in_order[place] is field
        words.append(_argument(field, getattr(kind, field.name), positional))
    return str(kind.keyword) + (f"({', '.join(words)})" if words else "") + chosen


def _required(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _argument(field: Field[Any], value: Any, positional: bool) -> str:
    """`d_head=128`; a flag, a leading number or a part of the field's own kind stands bare."""
    if value is True:
        return field.name
    text = _value(value)
    bare = positional and isinstance(value, int | Fraction)
    own = is_dataclass(value) and (field.name == "heads" or field.name == getattr(value, "keyword", None))
    return text if bare or own else f"{field.name}={text}"


def _value(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Fraction):
        return f"{float(value):g}" if Fraction(f"{float(value):g}") == value else str(value)
    return spelled(value) if is_dataclass(value) else str(value)


def words(text: str) -> set[str]:
    """The words of a definition."""
    return set(WORD.findall(text))
