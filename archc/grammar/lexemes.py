"""Lexeme: one word or sign of a spec."""

from __future__ import annotations

from dataclasses import dataclass

from archc.diagnostics import Source, Span


@dataclass(slots=True)
class Lexeme:
    """One token. `indent` is the width of its line's indentation if it is the first of its line, else -1."""

    type: str
    text: str
    source: Source
    start: int
    end: int
    indent: int = -1

    @property
    def span(self) -> Span:
        """Where it stands."""
        return Span(self.source, self.start, self.end)
