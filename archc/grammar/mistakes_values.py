"""Mistakes in arguments, lists and constant expressions."""

from __future__ import annotations

from archc.diagnostics import Diagnostic, error
from archc.grammar.mistakes_layers import stray_number
from archc.grammar.place import BEGINS, ENDS, OPERATORS, Place, short

_WANTS_VALUE = frozenset({*OPERATORS, "EQUAL", "EVERY", "OFFSET", "DOTS"})


def missing_comma(place: Place) -> Diagnostic | None:
    """`gqa(32 8)`, `< < a > < b > >`, `[1 2]`."""
    before = place.before
    if before is None or before.type not in ENDS or place.kind not in BEGINS or "COMMA" not in place.expected:
        return None
    if not place.inside:
        return None
    if place.inside == "LESS" and place.kind not in ("LESS", "NAME"):
        return None
    here = short(f"{before.text}, {place.at.text}")
    return error(
        "missing-comma",
        f"a comma is missing before `{place.at.text[:50]}`",
        place.at.span,
        help="put a `,` between them" if {before.text, place.at.text} & set("<>()[]") else f"write `{here}`",
    )


def missing_value(place: Place) -> Diagnostic | None:
    """`d_state=`, `every`, `1..`, `2 *`."""
    before = place.before
    if before is None or before.type not in _WANTS_VALUE or place.kind in ("NAME", "NUMBER", "LPAR", "LSQB"):
        return None
    return error(
        "expected-value",
        f"a value is missing behind `{before.text}`",
        before.span,
        "a value must follow",
        help=f"write a number or a name, as `{before.text}{' ' if before.text.isalpha() else ''}4`",
    )


def leading_parenthesis(place: Place) -> Diagnostic | None:
    """`vocab (50277 + 11) * 2`: behind the name of a setting, `(` opens its fields."""
    opens = len(place.lexemes) > 1 and place.lexemes[1].type == "LPAR"
    if place.head != "NAME" or not opens or place.before_kind != "RPAR" or place.kind not in OPERATORS or place.inside:
        return None
    return error(
        "leading-parenthesis",
        "the value of a setting cannot begin with a parenthesis",
        place.lexemes[1].span,
        "opens the fields of the setting",
        help=f"turn the product round: `{place.lexemes[0].text[:50]} 16*(...)`",
    )


def range_outside_list(place: Place) -> Diagnostic | None:
    """`f(1..4)`."""
    if place.kind != "DOTS" or place.before_kind not in ENDS or place.inside == "LSQB":
        return None
    return error("range-outside-list", "a range stands in a list", place.at.span, help="put it in brackets: `[4..7]`")


def at_without_list(place: Place) -> Diagnostic | None:
    """`attn at 4`."""
    if place.before_kind != "AT":
        return None
    number = place.at.text[:50] if place.kind == "NUMBER" else "1, 4..7"
    return error("expected-value", "`at` needs a list of layer numbers", place.at.span, help=f"write `at [{number}]`")


VALUE_RULES = (at_without_list, missing_value, leading_parenthesis, range_outside_list, missing_comma, stray_number)
