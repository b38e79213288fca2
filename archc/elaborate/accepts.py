"""What the fields of a kind or part accept, and what a word beside it sets."""

from __future__ import annotations

import types
from collections.abc import Iterable
from fractions import Fraction
from typing import Any, Literal, Union, get_args, get_origin

from archc.layers.kind import FieldInfo, Kind, Part, fields_of
from archc.layers.words import either

Owner = type[Kind] | type[Part]


def accepts(info: FieldInfo) -> tuple[Any, ...]:
    """The alternatives of a field's type: `int | None` is (int, NoneType)."""
    if isinstance(info.type, types.UnionType) or get_origin(info.type) is Union:
        return get_args(info.type)
    return (info.type,)


def is_part(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Part)


def is_kind(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Kind)


def choices(info: FieldInfo) -> list[str]:
    """The words of a field that takes one of a few."""
    return [choice for t in accepts(info) if get_origin(t) is Literal for choice in get_args(t)]


def part_of(info: FieldInfo, name: str) -> type[Part] | None:
    """The part `name`, if the field takes it."""
    part = Part.known.get(name)
    return part if part and any(is_part(t) and issubclass(part, t) for t in accepts(info)) else None


def field_of(cls: Owner, name: str) -> FieldInfo | None:
    """The field that a word `name` beside `cls` sets: the field itself, or the one field that takes the part."""
    own = fields_of(cls).get(name)
    if own is not None or name not in Part.known:
        return own
    takers = [info for info in fields_of(cls).values() if part_of(info, name)]
    return takers[0] if len(takers) == 1 else None


def value_words(infos: Iterable[FieldInfo]) -> list[str]:
    """The words that name a value of one of these fields."""
    found: list[str] = []
    for info in infos:
        found += choices(info)
        for t in accepts(info):
            known: dict[str, Any] = Part.known if is_part(t) else Kind.known if is_kind(t) else {}
            found += [word for word, cls in known.items() if issubclass(cls, t)]
    return found


def expected(info: FieldInfo) -> str:
    """What to write for a field, as the help of a diagnostic."""
    names = {int: "a whole number", Fraction: "a number", bool: "true or false", tuple[str, ...]: "a list of names"}
    names[tuple[int, ...]] = "a list of whole numbers"
    options = [names[t] for t in accepts(info) if t in names]
    options += [f"`{choice}`" for choice in choices(info)]
    options += [f"`{word}`" for word in value_words([info]) if word not in choices(info)]
    if type(None) in accepts(info):
        options.append("`none`")
    return f"`{info.name}` takes {either(options)}"


def example(info: FieldInfo) -> str:
    """A field with a value, as one would write it beside a kind."""
    given = info.metadata.get("example")
    if given:
        bare = str(given).replace(".", "").isdigit()
        return f"{info.name}={given}" if bare else str(given)
    return f"{info.name}={_value(info)}"


def _value(info: FieldInfo) -> str:
    kinds = {int: "128", Fraction: "0.5", bool: "true"}
    found = [kinds[t] for t in accepts(info) if t in kinds] + value_words([info])
    return "swiglu(1024)" if any(map(is_kind, accepts(info))) else found[0] if found else "..."
