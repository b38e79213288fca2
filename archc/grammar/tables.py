"""The LALR(1) tables of `arch.lark`, loaded from the form that lark itself serialises.

Building them takes lark longer than all else that the grammar does in a run, so they ship as
`arch.tables.json`. The file says which lark and which grammar it was made from; under any other
lark, or after an edit of the grammar, the tables are built anew in memory and nothing is written.

Regenerate with `PYTHONHASHSEED=0 python -m archc.grammar.tables` (lark numbers states in the order of
sets); a test fails when that was forgotten.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import lark
from lark import Lark, Token
from lark.grammar import Rule
from lark.lexer import TerminalDef

from archc.grammar.build import Builder

GRAMMAR = Path(__file__).with_name("arch.lark")
TABLES = Path(__file__).with_name("arch.tables.json")


class _Unruled:
    """Tells lark to keep the terminals that no rule names; layout and the checks of `scan` want them."""

    always_accept = ("NEWLINE", "SEMICOLON", "COMMENT", "BAD_WORD", "BAD_NUMBER", "BAD_PAIR", "BAD_SIGN")

    def process(self, stream: Iterator[Token]) -> Iterator[Token]:
        return stream


@cache
def tables() -> Lark:
    """The lexer and the parser of the language; the parser builds the syntax tree as it goes."""
    stored = json.loads(TABLES.read_bytes(), object_hook=_integer_keys) if TABLES.is_file() else {}
    if stored.get("made_from") != made_from():
        return build()
    # What lark's standalone parsers call; `made_from` admits no other version of it than the one that wrote the file.
    load: Callable[..., Lark] = Lark._load_from_dict
    return load(stored["data"], stored["memo"], transformer=Builder(), postlex=_Unruled())


def build(**options: Any) -> Lark:
    """The same, from the text of the grammar."""
    return Lark(
        GRAMMAR.read_text("utf-8"),
        parser="lalr",
        lexer="basic",
        start=["statement", "expression"],
        keep_all_tokens=True,
        maybe_placeholders=False,
        transformer=Builder(),
        postlex=_Unruled(),
        **options,
    )


def made_from() -> str:
    """What the tables follow from: lark's version and the grammar."""
    return f"lark {lark.__version__}, arch.lark {sha256(GRAMMAR.read_bytes()).hexdigest()}"


def serialise() -> str:
    """What belongs into `arch.tables.json`."""
    data, memo = build().memo_serialize([TerminalDef, Rule])
    for option in ("transformer", "postlex"):
        del data["options"][option]
    return json.dumps({"made_from": made_from(), "data": data, "memo": memo}, separators=(",", ":")) + "\n"


def _integer_keys(pairs: dict[str, Any]) -> dict[str | int, Any]:
    """JSON turned the numbers of parser states into strings."""
    return {int(key) if key.isdigit() else key: value for key, value in pairs.items()}


if __name__ == "__main__":
    TABLES.write_text(serialise(), "utf-8")
