"""Mistakes in lists of layers: repeats, `topK/E`, groups, what joins layers."""

from __future__ import annotations

import re

from archc.diagnostics import Diagnostic, Label, error
from archc.grammar.layout import CLOSERS, OPENERS
from archc.grammar.lexemes import Lexeme
from archc.grammar.place import OPERATORS, Place

_JOINS = {"PLUS": "+", "PARALLEL": "||", "FEED": "<-"}


def split_repeat(place: Place) -> Diagnostic | None:
    """`mamba x 4`, `block x 4 <`."""
    first = place.index if place.head == "BLOCK" and place.before_kind == "BLOCK" else place.index - 1
    pair = place.lexemes[first : first + 2] if first >= 0 else []
    if [lexeme.type for lexeme in pair] != ["NAME", "NUMBER"] or pair[0].text not in ("x", "X"):
        return None
    return error(
        "split-repeat",
        "a repeat is written as one word",
        place.span(first, first + 1),
        help=f"write `x{pair[1].text[:50]}`",
    )


def split_top(place: Place) -> Diagnostic | None:
    """`moe top 2/16`, `top2 / 16`."""
    word = place.before.text if place.before else ""
    if place.kind not in ("NUMBER", "SLASH") or not re.fullmatch("top[0-9]*", word):
        return None
    last = place.index
    while last + 1 < len(place.lexemes) and place.lexemes[last + 1].type in ("SLASH", "NUMBER"):
        last += 1
    text = "".join(lexeme.text for lexeme in place.lexemes[place.index - 1 : last + 1])
    whole = text if re.fullmatch("top[0-9]{1,40}/[0-9]{1,40}", text) else "top2/16"
    return error(
        "split-top",
        "the choice of experts is written as one word",
        place.span(place.index - 1, last),
        help=f"write `{whole}`",
    )


def repeat(place: Place) -> Diagnostic | None:
    """`x4` before a layer, behind a block, in a `let`, or twice."""
    if place.kind != "REPEAT":
        return None
    count = place.at.text[:50]
    earlier = next((lexeme for lexeme in place.element() if lexeme.type == "REPEAT"), None)
    if earlier and place.inside == "LESS":
        return error(
            "double-repeat",
            "this is repeated twice",
            place.at.span,
            "the second count",
            Label(earlier.span, "the first"),
            help="keep one count, or nest: `< mamba x2 > x3`",
        )
    way_out = _where_repeats_stand(place, count)
    if way_out is None:
        return None
    return error("misplaced-repeat", f"`{count}` repeats nothing here", place.at.span, help=way_out)


def _where_repeats_stand(place: Place, count: str) -> str | None:
    if place.inside == "LESS" and place.before_kind in ("LESS", "COMMA"):
        return f"a repeat stands behind its layer: `{place.after.text[:50] if place.after else 'mamba'} {count}`"
    if place.inside:
        return None
    if place.head == "BLOCK":
        return f"the repeat of a block stands before its `<`: `block {count} <`"
    if place.head == "LET" and place.index > 1:
        return f"repeat the name where it is used, or name a group: `< ... > {count}`"
    if place.head == "SHARE" and place.index > 1:
        return f"the number of copies stands before the `=`: `share {place.lexemes[1].text[:50]} {count} =`"
    return None


def missing_group(place: Place) -> Diagnostic | None:
    """`block mamba, attn`."""
    if place.head != "BLOCK" or place.inside or "LESS" not in place.expected:
        return None
    return error(
        "missing-group",
        "a block needs its layers between `<` and `>`",
        place.at.span,
        "`<` is missing here",
        help="write `block x4 < mamba x7, attn gqa(32,8) >`",
    )


def empty(place: Place) -> Diagnostic | None:
    """`< >`, `[ ]`, and a comma without anything before it."""
    if place.kind == "COMMA" and place.before_kind in ("COMMA", "LESS", "LPAR", "LSQB"):
        return error("doubled-comma", "nothing stands before this comma", place.at.span, help="remove it")
    if place.before_kind not in ("LESS", "LSQB") or place.kind not in CLOSERS or place.before is None:
        return None
    span = place.before.span.to(place.at.span)
    if place.kind == "MORE":
        return error("empty-group", "a group of no layers", span, help="put a layer between `<` and `>`, or remove it")
    return error("empty-list", "a list of nothing", span, help="put a value between `[` and `]`, as `[1, 4..7]`")


def missing_layer(place: Place) -> Diagnostic | None:
    """`mamba +`, `|| attn`, `let a =`, `let a = 4`."""
    before = place.before
    if before is None or place.inside not in ("", "LESS") or place.head in ("NAME", "MODEL", ""):
        return None
    if before.type == "FEED" and "NAME" in place.expected:
        message = "`<-` needs the name of a shared layer"
        return error("missing-name", message, place.at.span, help="declare it: `share g = ...`")
    nothing = place.kind in ("$END", "COMMA", "MORE", *_JOINS)
    if before.type in ("PLUS", "PARALLEL") and nothing:
        return _missing_layer(place, f"a layer is missing behind `{_JOINS[before.type]}`")
    if _defines(place):
        word = place.lexemes[0].text
        message = "a layer is missing behind `=`" if nothing else f"`{word}` names a layer, not a value"
        return _missing_layer(place, message)
    if before.type in ("LESS", "COMMA") and place.kind in _JOINS:
        return _missing_layer(place, f"a layer is missing before `{_JOINS[place.kind]}`")
    return None


def _missing_layer(place: Place, message: str) -> Diagnostic:
    return error("expected-layer", message, place.at.span, help="a layer is a word and its fields, as `attn gqa(32,8)`")


def _defines(place: Place) -> bool:
    """Whether the place is right behind the `=` of a `let` or `share`."""
    outside = _outside(place.lexemes[: place.index])
    heads = place.head in ("LET", "SHARE") and place.before_kind == "EQUAL" and not place.inside
    return heads and sum(lexeme.type == "EQUAL" for lexeme in outside) == 1


def _outside(lexemes: list[Lexeme]) -> list[Lexeme]:
    """Those that stand in no bracket."""
    depth = 0
    found: list[Lexeme] = []
    for lexeme in lexemes:
        depth += (lexeme.type in OPENERS) - (lexeme.type in CLOSERS)
        if depth == 0:
            found.append(lexeme)
    return found


def bare_sum(place: Place) -> Diagnostic | None:
    """`dt_rank=d_model/16 + 1`: outside parentheses a `+` joins sublayers."""
    after_plus = place.before_kind == "PLUS" and place.kind in ("NUMBER", "MINUS", "LPAR", "LSQB")
    equal = _field(place) if after_plus or place.kind in OPERATORS - {"PLUS"} else None
    if equal is None or place.before is None:
        return None
    last = place.index
    while last + 1 < len(place.lexemes) and place.lexemes[last + 1].type in OPERATORS | {"NUMBER"}:
        last += 1
    return error(
        "bare-sum",
        "outside parentheses a `+` joins sublayers, and a value takes only `*` and `/`",
        place.before.span if after_plus else place.at.span,
        help=f"put the value into parentheses: `{place.lexemes[equal - 1].text[:40]}=({place.text(equal + 1, last)})`",
    )


def _field(place: Place) -> int | None:
    """The index of the `=` of the field whose value the place is in, outside parentheses."""
    if place.inside not in ("", "LESS"):
        return None
    depth = 0
    for i in range(place.index - 1, 0, -1):
        kind = place.lexemes[i].type
        depth += (kind in CLOSERS) - (kind in OPENERS)
        if depth < 0 or (depth == 0 and kind == "COMMA"):
            return None
        if depth == 0 and kind == "EQUAL":
            defines = place.head in ("LET", "SHARE") and _outside(place.lexemes[:i])[-1:] == place.lexemes[i - 1 : i]
            return None if defines and all(x.type != "EQUAL" for x in _outside(place.lexemes[:i])) else i
    return None


def feed(place: Place) -> Diagnostic | None:
    """`a <- g <- h`, `a <- g || b`."""
    if place.kind not in ("FEED", "PARALLEL"):
        return None
    earlier = [lexeme for lexeme in place.element() if lexeme.type in ("FEED", "PLUS")]
    if not earlier or earlier[-1].type != "FEED":
        return None
    return error(
        "misplaced-feed",
        f"`{place.at.text}` cannot stand behind `<-`",
        place.at.span,
        "",
        Label(earlier[-1].span, "already fed here"),
        help="one shared layer feeds the norm of a sublayer, behind all its mixers: `a || b <- g`",
    )


def stray_number(place: Place) -> Diagnostic | None:
    """`mamba 4`."""
    if place.kind != "NUMBER" or place.inside not in ("", "LESS") or place.before is None:
        return None
    number = place.at.text[:50]
    if place.head == "":
        return None
    if place.head in ("NAME", "MODEL"):
        way_out = "a setting has one value; lists stand in brackets, as `[1, 4..7]`"
    else:
        way_out = f"repeat with `x{number}`, or give a field: `d_state={number}`"
    return error(
        "stray-number",
        f"`{number}` belongs to nothing",
        place.at.span,
        help=way_out,
    )


LAYER_RULES = (split_repeat, split_top, repeat, missing_group, empty, missing_layer, feed, bare_sum)
