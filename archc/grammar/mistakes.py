"""Syntax errors in words: from the place where the parser stopped to a sentence and a way out.

Each rule looks at the place and says what the writer most likely did, or nothing. The first that
speaks wins, so the order goes from the particular to the general.
"""

from __future__ import annotations

from archc.diagnostics import Diagnostic, error
from archc.grammar.layout import CLOSERS, OPENERS
from archc.grammar.mistakes_layers import LAYER_RULES
from archc.grammar.mistakes_statements import STATEMENT_RULES
from archc.grammar.mistakes_values import VALUE_RULES
from archc.grammar.place import Place

# Names of terminals for people, in the order in which they are offered.
_NAMES = {
    "NAME": "a name",
    "NUMBER": "a number",
    "LESS": "`<`",
    "MORE": "`>`",
    "LPAR": "`(`",
    "RPAR": "`)`",
    "LSQB": "`[`",
    "RSQB": "`]`",
    "EQUAL": "`=`",
    "COMMA": "`,`",
    "REPEAT": "a repeat such as `x4`",
    "TOPK": "`topK/E`",
    "EVERY": "`every`",
    "NONE": "`none`",
    "DOTS": "`..`",
    "$END": "the end of the statement",
}

RULES = (*LAYER_RULES, *STATEMENT_RULES, *VALUE_RULES)


def explain(place: Place) -> Diagnostic:
    """What is wrong at `place`."""
    for rule in RULES:
        finding = rule(place)
        if finding is not None:
            return finding
    return _unexpected(place)


def _way_out(place: Place) -> str | None:
    if place.start == "expression":
        return "a value is one expression, as `4096`, `rms(eps=1e-6)` or `none`"
    if place.index == 0:
        return "a statement begins with `model`, `let`, `share`, `block` or the name of a setting"
    # A state of the parser serves all sorts of brackets, so it does not know which one is open.
    closes = OPENERS.get(place.inside, "$END")
    elsewhere = {"$END", "DOTS", *CLOSERS} - {closes, "DOTS" if place.inside == "LSQB" else ""}
    offered = [name for kind, name in _NAMES.items() if kind in place.expected - elsewhere][:6]
    if not offered:
        return None
    return "here may stand " + ", ".join(offered[:-1]) + " or " * (len(offered) > 1) + offered[-1]


def _unexpected(place: Place) -> Diagnostic:
    way_out = _way_out(place)
    early = place.kind == "$END"
    message = "the statement ends too early" if early else f"`{place.at.text[:50]}` cannot stand here"
    return error("unexpected-token", message, place.at.span, help=way_out)
