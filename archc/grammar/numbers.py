"""Numbers of the language: from their letters to exact fractions, and what may be wrong with them."""

from __future__ import annotations

import re
from fractions import Fraction

from archc.diagnostics import Diagnostic, Span, error
from archc.grammar.lexemes import Lexeme
from archc.grammar.tree import Number

UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}

# Far beyond any size of a model, and small enough that arithmetic on what a spec can write stays cheap.
MAX_DIGITS = 40
MAX_EXPONENT = 60

_NUMBER = re.compile(r"([0-9]+(?:\.[0-9]+)?)(?:[eE]([+-]?[0-9]+))?([A-Za-z]*)")

# What people write for a unit elsewhere, and what they may have meant by it.
_OTHER_UNITS = {
    "K": ("Ki", "k"),
    "KB": ("Ki", "k"),
    "KiB": ("Ki",),
    "kb": ("Ki", "k"),
    "kB": ("Ki", "k"),
    "ki": ("Ki", "k"),
    "m": ("M",),
    "mi": ("Mi",),
    "MB": ("Mi", "M"),
    "MiB": ("Mi",),
    "g": ("G",),
    "gi": ("Gi",),
    "GB": ("Gi", "G"),
    "GiB": ("Gi",),
    "B": ("G",),
    "b": ("G",),
    "T": (),
    "Ti": (),
}


def number_of(lexeme: Lexeme) -> Number:
    """The node for a NUMBER lexeme whose size `check_number` has passed."""
    digits, exponent, unit = _parts(lexeme.text)
    value = Fraction(digits) * Fraction(10) ** int(exponent) * UNITS[unit]
    return Number(span=lexeme.span, value=value, text=lexeme.text, unit=unit)


def check_number(lexeme: Lexeme) -> Diagnostic | None:
    """What is wrong with a NUMBER, if anything: only its size can be."""
    digits, exponent, _ = _parts(lexeme.text)
    if len(digits) <= MAX_DIGITS and len(exponent) <= 4 and abs(int(exponent)) <= MAX_EXPONENT:
        return None
    limit = f"a number has at most {MAX_DIGITS} digits and an exponent between -{MAX_EXPONENT} and {MAX_EXPONENT}"
    return error("number-too-long", "this number is longer than any size of a model", lexeme.span, "", help=limit)


def check_count(lexeme: Lexeme) -> Diagnostic | None:
    """What is wrong with the counts inside `x4` or `top2/16`, if anything."""
    counts = lexeme.text.lstrip("xtop").split("/")
    if any(len(count) > MAX_DIGITS for count in counts):
        return error(
            "number-too-long",
            "this count is longer than any size of a model",
            lexeme.span,
            help=f"a count has at most {MAX_DIGITS} digits",
        )
    if any(int(count) == 0 for count in counts):
        return _zero_count(lexeme)
    return None


def _zero_count(lexeme: Lexeme) -> Diagnostic:
    if lexeme.type == "REPEAT":
        message, way_out = "nothing can be repeated 0 times", "remove it, or repeat it at least once: `x1`"
    else:
        message, way_out = "a router cannot choose 0 experts, or among 0", "write `topK/E`, as `top2/16`"
    return error("zero-count", message, lexeme.span, "at least 1", help=way_out)


def explain_bad_number(lexeme: Lexeme) -> Diagnostic:
    """A word that starts like a number and is none: an unknown unit, a stray dot, another notation."""
    match = _NUMBER.match(lexeme.text)
    if match and match.end() == len(lexeme.text) and match[3] not in (*UNITS, "e", "E"):
        return _unknown_unit(lexeme, match[3])
    return error(
        "bad-number",
        f"`{_short(lexeme.text)}` is not a number",
        lexeme.span,
        help=_way_out(lexeme.text),
    )


def _unknown_unit(lexeme: Lexeme, unit: str) -> Diagnostic:
    digits = lexeme.text.removesuffix(unit)
    if unit in ("x", "X"):
        message = "a repeat begins with its `x`, and stands behind what it repeats"
        return error("split-repeat", message, lexeme.span, help=f"write `x{digits}`, as in `mamba x{digits}`")
    ways = [f"`{digits}{way}` ({UNITS[way]:,} each)" for way in _OTHER_UNITS.get(unit, ())]
    return error(
        "unknown-unit",
        f"`{_short(unit)}` is not a unit",
        Span(lexeme.source, lexeme.end - len(unit), lexeme.end),
        help="write " + " or ".join(ways) if ways else "the units are k, M, G (1000s) and Ki, Mi, Gi (1024s)",
    )


def _way_out(text: str) -> str:
    plain = text.replace("_", "")
    if plain != text and _NUMBER.fullmatch(plain):
        return f"digits are not grouped: write `{plain}`"
    if text.startswith(".") and _NUMBER.fullmatch("0" + text):
        return f"write `0{text}`"
    if text.endswith(".") and _NUMBER.fullmatch(text + "0"):
        return f"write `{text[:-1]}`"
    if re.fullmatch("0[xX][0-9a-fA-F]{1,32}", text):
        return f"numbers are decimal: write `{int(text, 16)}`"
    return "numbers look like `4096`, `256Ki`, `1.5M` or `1e-5`"


def _parts(text: str) -> tuple[str, str, str]:
    match = _NUMBER.fullmatch(text)
    assert match, text  # the lexer's NUMBER is the same pattern
    return match[1], match[2] or "0", match[3]


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:40] + "..."
