"""A layer kind or part in the words of the language, from nothing but its fields."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from fractions import Fraction
from typing import Any, Protocol, cast

from archc.ir.graph import Scope

LEGIBLE = 10**6  # denominator up to which a fraction says more than its decimals: roots have larger ones
WORD = re.compile(r"[a-z_][a-z_0-9]*")


def spelled(kind: Any, norm: Any = None) -> str:
    """A layer kind or part, with every field that differs from its default: `moe(expert=swiglu(14336)) top2/16`.

    `norm` is the model's, whose fields are the defaults of the same norm elsewhere.
    """
    in_order = sorted(fields(kind), key=lambda f: bool(f.metadata.get("late")))  # as the language counts them
    elsewhere = norm if type(norm) is type(kind) else kind
    given = {
        f.name: f
        for f in in_order
        if _required(f) or getattr(kind, f.name) != f.default or getattr(elsewhere, f.name) != getattr(kind, f.name)
    }
    chosen = ""
    if {"top_k", "n_experts"} <= given.keys():
        chosen = f" top{kind.top_k}/{kind.n_experts}"
        del given["top_k"], given["n_experts"]
    words: list[str] = []
    for place, field in enumerate(given.values()):
        positional = _required(field) and in_order[place] is field
        words.append(_argument(field, getattr(kind, field.name), positional, norm))
    return str(kind.keyword) + (f"({', '.join(words)})" if words else "") + chosen


class SharedProgram(Protocol):
    """What the scope of a shared module is identified by: the fields of its `share`, and its sublayers' branches."""

    fields: Any
    sublayers: Sequence[Sequence[Any]]


def spelled_share(scope: Scope, norm: Any = None) -> str:
    """The statement that defines a shared module, on a line for its fields and one for each sublayer."""
    assert scope.shared is not None
    program = cast(SharedProgram, scope.identity)
    sublayers = [" || ".join(spelled(kind, norm) for kind in kinds) for kinds in program.sublayers]
    head = f"share {scope.shared.name}{spelled(program.fields, norm)}{copies_text(scope.shared.copies)} ="
    return "\n  ".join([head, "\n  + ".join(sublayers)])


def copies_text(copies: int) -> str:
    return f" x{copies}" if copies > 1 else ""


def _required(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _argument(field: Field[Any], value: Any, positional: bool, norm: Any) -> str:
    """`d_head=128`; a flag, a leading number or a part of the field's own kind stands bare."""
    name = field.name.rstrip("_")  # `in` is no name in Python
    if value is True:
        return name
    text = _value(value, norm)
    bare = positional and isinstance(value, int | Fraction | str)
    own = is_dataclass(value) and name in ("heads", getattr(value, "keyword", None))
    return text if bare or own else f"{name}={text}"


def _value(value: Any, norm: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(_value(each, norm) for each in value)}]"
    if isinstance(value, Fraction):
        if Fraction(f"{float(value):g}") == value:
            return f"{float(value):g}"
        return str(value) if value.denominator < LEGIBLE else repr(float(value))
    return spelled(value, norm) if is_dataclass(value) else str(value)


def words(text: str) -> set[str]:
    """The words of a definition."""
    return set(WORD.findall(text))
