"""stub"""
from __future__ import annotations
from dataclasses import dataclass
from archc.diagnostics import Diagnostic, error
from archc.grammar.lexemes import Lexeme

@dataclass(frozen=True, slots=True)
class Place:
    start: str
    lexemes: list[Lexeme]
    index: int
    previous: list[Lexeme]
    expected: frozenset[str]

def explain(place: Place) -> Diagnostic:
    last = place.lexemes[min(place.index, len(place.lexemes)-1)]
    return error("unexpected-token", f"unexpected {last.text}", last.span)
