"""One value of a spec to the type of the field that it is for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from archc.diagnostics import Diagnostic, DiagnosticError, Span, error, nearest, warning
from archc.elaborate.accepts import accepts, choices, expected, is_kind, part_of, value_words
from archc.elaborate.constants import Lookup, evaluate, shown
from archc.grammar.tree import Arg, Binary, Expr, ListExpr, Name, Negative, NoneLiteral, Number, Range
from archc.layers.kind import FieldInfo, Kind, Part

MAX_SIZE = 10**12  # of one dimension or count; far beyond any model, and small enough that every report has room
BINARY_UNITS = {"k": "Ki", "M": "Mi", "G": "Gi"}


@dataclass(frozen=True)
class Bound:
    """A field's value and where it was said; `inner` holds the same for a composite value."""

    value: Any
    span: Span
    inner: dict[str, Bound] = field(default_factory=dict)


@dataclass(frozen=True)
class Converter:
    """Values to fields. `part` and `kind` bind composite values; a kind is None where a name means none."""

    lookup: Lookup
    warn: Callable[[Diagnostic], None]
    part: Callable[[type[Part], tuple[Arg, ...], Span], Bound]
    kind: Callable[[Name, type[Kind]], Bound | None]

    def convert(self, info: FieldInfo, value: Expr) -> Bound:
        """The value of a field. Raises DiagnosticError if the field does not take it."""
        accepted = accepts(info)
        if isinstance(value, NoneLiteral):
            if type(None) not in accepted:
                raise DiagnosticError(
                    error("wrong-value", f"`{info.name}` cannot be none", value.span, help=expected(info))
                )
            return Bound(None, value.span)
        if isinstance(value, Name):
            named = self._named(info, value)
            if named is not None:
                return named
        if isinstance(value, ListExpr):
            if tuple[int, ...] in accepted:
                return Bound(tuple(self._list_integer(info, item) for item in value.items), value.span)
            if tuple[str, ...] not in accepted:
                raise DiagnosticError(_wrong(info, "a list", value.span))
            return Bound(tuple(_list_word(info, item) for item in value.items), value.span)
        if int in accepted:
            return Bound(self._integer(info, value), value.span)
        if Fraction in accepted:
            return Bound(self._fraction(info, value), value.span)
        raise DiagnosticError(_wrong(info, "a number", value.span))

    def is_value(self, info: FieldInfo, value: Name) -> bool:
        """Whether a name means something to the field, be it with wrong arguments."""
        name = value.ident.name
        if part_of(info, name) or name in (*choices(info), *value_words([info]), "true", "false"):
            return True
        return any(map(is_kind, accepts(info)))

    def _named(self, info: FieldInfo, value: Name) -> Bound | None:
        """A name as a value: true or false, a choice, a part, a kind; None if it can only be a constant."""
        name = value.ident.name
        accepted = accepts(info)
        if bool in accepted and value.args is None and name in ("true", "false"):
            return Bound(name == "true", value.span)
        if value.args is None and name in choices(info):
            return Bound(name, value.span)
        part = part_of(info, name)
        if part is not None:
            return self.part(part, value.args or (), value.span)
        for family in filter(is_kind, accepted):
            kind = self.kind(value, family)
            if kind is not None:
                return kind
        if (int in accepted or Fraction in accepted) and not _is_known_word(name):
            return None
        near = nearest(name, value_words([info]))
        hint = f"did you mean `{near}`?" if near else expected(info)
        message = f"`{name}` is not a value of `{info.name}`"
        raise DiagnosticError(error("wrong-value", message, value.ident.span, help=hint))

    def _integer(self, info: FieldInfo, value: Expr) -> int:
        number = evaluate(value, self.lookup)
        if number.denominator != 1:
            message = f"`{info.name}` is a whole number, and {shown(number)} is not"
            raise DiagnosticError(error("not-an-integer", message, value.span, help=_rounded(value, number)))
        if number < 1:
            message = f"`{info.name}` is at least 1, and {shown(number)} is less"
            none = f"; `{info.name} none` leaves it open" if type(None) in accepts(info) else ""
            raise DiagnosticError(error("too-small", message, value.span, help=f"write 1 or more{none}"))
        if number > MAX_SIZE:
            message = f"`{info.name}` is at most {MAX_SIZE:,}"
            raise DiagnosticError(error("too-large", message, value.span, help="check the number and its unit"))
        if info.metadata.get("tokens") and isinstance(value, Number) and value.unit in BINARY_UNITS:
            self.warn(_decimal_unit(info, value, int(number)))
        return int(number)

    def _list_integer(self, info: FieldInfo, item: Range) -> int:
        if item.stop is not None:
            raise DiagnosticError(error("wrong-value", f"`{info.name}` takes a list of whole numbers", item.span))
        return self._integer(info, item.start)

    def _fraction(self, info: FieldInfo, value: Expr) -> Fraction:
        number = evaluate(value, self.lookup)
        above = info.metadata.get("above")
        if above is not None and number <= above:
            message = f"`{info.name}` is greater than {above}, and {shown(number)} is not"
            raise DiagnosticError(error("too-small", message, value.span, help=f"write more than {above}"))
        return number


def _wrong(info: FieldInfo, what: str, span: Span) -> Diagnostic:
    return error("wrong-value", f"`{info.name}` does not take {what}", span, help=expected(info))


def _is_known_word(name: str) -> bool:
    return name in Part.known or name in Kind.known or name in ("true", "false")


def _list_word(info: FieldInfo, item: Range) -> str:
    if isinstance(item.start, Name) and item.start.args is None and item.stop is None:
        return item.start.ident.name
    raise DiagnosticError(error("wrong-value", f"`{info.name}` takes a list of names", item.span))


def _rounded(value: Expr, number: Fraction) -> str:
    text = value.span.text
    if text and isinstance(value, Binary | Negative) and len(text) <= 40:
        return f"`ceil({text})` and `floor({text})` round"
    return f"write {number.numerator // number.denominator} or {-(-number.numerator // number.denominator)}"


def _decimal_unit(info: FieldInfo, value: Number, number: int) -> Diagnostic:
    unit = BINARY_UNITS[value.unit]
    meant = value.text.removesuffix(value.unit) + unit
    scaled = value.value / {"k": 10**3, "M": 10**6, "G": 10**9}[value.unit]
    binary = scaled * {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}[unit]
    message = f"`{value.text}` is {number:,} tokens, and `{meant}` is {shown(binary)}"
    return warning("decimal-unit", message, value.span, help=f"write `{meant}`, or {number} if that is meant")
