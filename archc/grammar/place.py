"""Where the parser stopped: the lexeme that it could not take, and what stands around it."""

from __future__ import annotations

from dataclasses import dataclass

from archc.diagnostics import Span
from archc.grammar.layout import CLOSERS, OPENERS
from archc.grammar.lexemes import Lexeme

# What can be the last or the first lexeme of a value, a word or a layer.
ENDS = frozenset({"NAME", "NUMBER", "NONE", "REPEAT", "TOPK", *CLOSERS})
BEGINS = frozenset({"NAME", "NUMBER", "NONE", "TOPK", *OPENERS})
OPERATORS = frozenset({"PLUS", "MINUS", "STAR", "SLASH"})


@dataclass(frozen=True, slots=True)
class Place:
    """The statement `lexemes`, and the index of the one that does not fit (their number, at its end).

    `previous` is the statement before it; `expected` the terminals that the parser could have taken.
    """

    start: str
    lexemes: list[Lexeme]
    index: int
    previous: list[Lexeme]
    expected: frozenset[str]

    @property
    def at(self) -> Lexeme:
        """The lexeme that does not fit; at the end of the statement, an empty one."""
        if self.index < len(self.lexemes):
            return self.lexemes[self.index]
        last = self.lexemes[-1]
        return Lexeme("$END", "", last.source, last.end, last.end)

    @property
    def kind(self) -> str:
        return self.at.type

    @property
    def before(self) -> Lexeme | None:
        return self.lexemes[self.index - 1] if self.index else None

    @property
    def before_kind(self) -> str:
        return self.before.type if self.before else ""

    @property
    def after(self) -> Lexeme | None:
        return self.lexemes[self.index + 1] if self.index + 1 < len(self.lexemes) else None

    @property
    def head(self) -> str:
        """What the statement begins with; nothing for a lone expression."""
        return self.lexemes[0].type if self.start == "statement" else ""

    @property
    def opener(self) -> Lexeme | None:
        """The innermost bracket that is open."""
        depth = 0
        for lexeme in reversed(self.lexemes[: self.index]):
            depth += (lexeme.type in CLOSERS) - (lexeme.type in OPENERS)
            if depth < 0:
                return lexeme
        return None

    @property
    def inside(self) -> str:
        """The kind of the innermost open bracket; empty outside brackets."""
        return self.opener.type if self.opener else ""

    def element(self) -> list[Lexeme]:
        """What stands before the lexeme in the same element of the bracket, nested brackets left out."""
        depth = 0
        found: list[Lexeme] = []
        for lexeme in reversed(self.lexemes[: self.index]):
            depth += (lexeme.type in CLOSERS) - (lexeme.type in OPENERS)
            if depth < 0 or (depth == 0 and lexeme.type in ("COMMA", "EQUAL")):
                break
            if depth == 0:
                found.append(lexeme)
        return found[::-1]

    def text(self, first: int, last: int) -> str:
        """The text from one lexeme to another, as far as it is one short line."""
        a, b = self.lexemes[first], self.lexemes[min(last, len(self.lexemes) - 1)]
        return short(a.source.text[a.start : min(b.end, a.start + 200)])

    def span(self, first: int, last: int) -> Span:
        a, b = self.lexemes[first], self.lexemes[min(last, len(self.lexemes) - 1)]
        return Span(a.source, a.start, b.end)


def short(text: str) -> str:
    """`text` on one line, cut where it would fill the screen."""
    line = " ".join(text.split())
    return line if len(line) <= 50 else line[:50].rstrip() + "..."
