"""Rows of characters with styles, how wide text is on a terminal, and what it must not send there."""

from __future__ import annotations

from itertools import groupby
from typing import Literal
from unicodedata import category, combining, east_asian_width

Style = Literal["", "strong", "frame", "error", "warning", "secondary"]

_ANSI: dict[Style, str] = {
    "strong": "1",
    "frame": "1;34",
    "error": "1;31",
    "warning": "1;33",
    "secondary": "1;34",
}

TAB = 4


def paint(text: str, style: Style, colour: bool) -> str:
    """`text` in a style, if colours are wanted."""
    return f"\x1b[{_ANSI[style]}m{text}\x1b[0m" if colour and style and text.strip() else text


def visible(text: str) -> str:
    """`text` on one line, with everything that a terminal would obey or hide written out as its code point."""
    return text if text.isascii() and text.isprintable() else "".join(map(_drawn, text))


def _drawn(char: str) -> str:
    if char == "\t":
        return " " * TAB
    hidden = category(char) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs") and char != " "
    return f"\\u{{{ord(char):x}}}" if hidden else char


def width(text: str) -> int:
    """The number of columns that `text`, already `visible`, takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(0 if combining(char) else 1 + (east_asian_width(char) in "WF") for char in text)


class Row:
    """One line to be drawn. Columns count from 0; writing over a column replaces what is there."""

    def __init__(self) -> None:
        self._cells: dict[int, tuple[str, Style]] = {}
        self._end = 0

    def put(self, column: int, text: str, style: Style = "") -> Row:
        for char in text:
            if column > 0 and combining(char):
                drawn, old = self._cells.get(column - 1, (" ", style))
                self._cells[column - 1] = (drawn + char, old)
                continue
            self._cells[column] = (char, style)
            wide = width(char)
            if wide == 2:
                self._cells[column + 1] = ("", style)
            column += wide
        self._end = max(self._end, column)
        return self

    def text(self, colour: bool) -> str:
        cells = [self._cells.get(column, (" ", "")) for column in range(self._end)]
        runs = groupby(cells, key=lambda cell: cell[1])
        return "".join(paint("".join(char for char, _ in run), style, colour) for style, run in runs).rstrip()
