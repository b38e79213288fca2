"""Mistakes in the frame of statements: names, `=`, where a statement begins and ends."""

from __future__ import annotations

import re

from archc.diagnostics import Diagnostic, Label, error
from archc.grammar.layout import STATEMENT_WORDS
from archc.grammar.place import Place, short

_CONTINUATIONS = frozenset({"PLUS", "PARALLEL", "FEED", "REPEAT", "TOPK", "EVERY", "AT", "OFFSET", "COMMA", "EQUAL"})
_RESERVED = frozenset({*STATEMENT_WORDS, "EVERY", "OFFSET", "AT", "NONE"})


# Statements that name something, and what that looks like.
_NAMING = {"MODEL": "model jamba_v0_1", "LET": "let swa = attn window(2048)", "SHARE": "share g = attn gqa(32,32)"}

_USES = {
    **dict.fromkeys(STATEMENT_WORDS, "it begins a statement, and cannot stand inside one"),
    "EVERY": "it stands behind what it belongs to: `moe every 2 top2/16`",
    "AT": "it stands behind what it belongs to: `attn at [1, 4..7]`",
    "NONE": "it stands behind the name of what it switches off: `rope none`",
}


def unindented(place: Place) -> Diagnostic | None:
    """A line that continues the statement above, but stands as far left."""
    first = place.lexemes[0]
    if place.head == "" or first.indent < 0 or not place.previous:
        return None
    joins = place.index == 0 and place.kind in _CONTINUATIONS
    suffix = (
        place.head == "NAME"
        and place.previous[0].type in ("BLOCK", "LET", "SHARE")
        and place.kind in ("TOPK", "EVERY", "AT", "NAME", "REPEAT")
        and not place.inside
        and place.at.indent < 0
    )
    if not joins and not suffix:
        return None
    return error(
        "unindented-suffix",
        "this line continues no statement, for it is not indented",
        place.span(0, place.index),
        "",
        Label(place.previous[0].span, "the statement above begins here"),
        help="indent it to continue the statement above",
    )


def indented(place: Place) -> Diagnostic | None:
    """A new statement that is indented deeper than the one above."""
    if place.inside or place.index == 0 or place.at.indent < 0 or place.kind not in {"NAME", *STATEMENT_WORDS}:
        return None
    return error(
        "indented-statement",
        "this line is indented, so it continues the statement above",
        place.at.span,
        "",
        Label(place.lexemes[0].span, "which begins here"),
        help="remove the indentation to begin a new statement",
    )


def bad_name(place: Place) -> Diagnostic | None:
    """`model jamba-v0.1`, `let a.b = ...`."""
    if place.head not in _NAMING or place.index != 2 or place.kind not in ("MINUS", "SLASH", "NUMBER"):
        return None
    last = place.index
    while last + 1 < len(place.lexemes) and place.lexemes[last + 1].start == place.lexemes[last].end:
        last += 1
    plain = re.sub("[^A-Za-z0-9]+", "_", place.text(1, last)).strip("_")
    message = "a name holds letters, digits and `_` only"
    return error("bad-name", message, place.span(1, last), help=f"write `{short(plain)}`")


def missing_name(place: Place) -> Diagnostic | None:
    """`let = mamba`, `model`."""
    if place.head not in _NAMING or place.index != 1 or place.kind in _RESERVED | {"REPEAT", "TOPK"}:
        return None
    word = place.lexemes[0].text
    way_out = f"write it behind `{word}`: `{_NAMING[place.head]}`"
    return error("missing-name", f"`{word}` needs a name", place.at.span, help=way_out)


def reserved_word(place: Place) -> Diagnostic | None:
    """`let block = ...`, `model x4`."""
    if "NAME" not in place.expected:
        return None
    word = place.at.text[:50]
    if place.kind in ("REPEAT", "TOPK") and place.head in _NAMING and place.index == 1:
        reads = "a repeat" if place.kind == "REPEAT" else "a choice of experts"
        return error("reserved-word", f"`{word}` is {reads}, not a name", place.at.span, help="choose another name")
    if place.kind not in _RESERVED or place.kind == "OFFSET":
        return None
    if place.index and place.kind in STATEMENT_WORDS and place.index > 1 and not place.inside:
        return None
    names = place.index == 1 and place.head in _NAMING
    return error(
        "reserved-word",
        f"`{word}` is a word of the language, not a name",
        place.at.span,
        help=f"choose another name, as `my_{word}`" if names else _USES[place.kind],
    )


def equals(place: Place) -> Diagnostic | None:
    """`vocab = 65536`, and `let mamba mamba(...)`."""
    if place.head == "NAME" and place.index == 1 and place.kind == "EQUAL":
        name = place.lexemes[0].text[:50]
        value = place.text(2, len(place.lexemes)) if place.after else "65536"
        return error("setting-equals", "a setting takes no `=`", place.at.span, help=f"write `{name} {value}`")
    if place.head in ("LET", "SHARE") and not place.inside and "EQUAL" in place.expected and place.index >= 2:
        if any(lexeme.type == "EQUAL" for lexeme in place.lexemes[: place.index]):
            return None
        word = place.lexemes[0].text
        return error(
            "missing-equals",
            f"`{word}` needs an `=` between the name and its layer",
            place.at.span,
            "`=` is missing here",
            help=f"write `{place.text(0, place.index - 1)} = ...`",
        )
    return None


def stray_offset(place: Place) -> Diagnostic | None:
    """`moe offset 1`."""
    if place.kind != "OFFSET":
        return None
    return error("stray-offset", "`offset` belongs behind `every N`", place.at.span, help="write `every 2 offset 1`")


def missing_separator(place: Place) -> Diagnostic | None:
    """Two statements on one line: `vocab 65536 d_model 4096`."""
    if place.inside or place.index == 0 or place.head == "":
        return None
    whole_setting = place.head in ("NAME", "MODEL") and place.index > 1 and place.kind == "NAME"
    if place.kind not in STATEMENT_WORDS and not whole_setting:
        return None
    return error(
        "missing-separator",
        f"the statement before `{place.at.text[:50]}` has not ended",
        place.at.span,
        "",
        Label(place.lexemes[0].span, "begins here"),
        help="begin a new line, or put `;` between two statements",
    )


STATEMENT_RULES = (unindented, indented, bad_name, missing_name, equals, stray_offset, reserved_word, missing_separator)
