"""Documents and their layout on lines: what fits stays on one line, what does not is broken outside in.

A document is text, a concatenation, or a sequence of elements. Elements carry the comments that
stand before and behind them, and a comment always breaks the sequence that it is in.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

WIDTH = 100
INDENT = 2


@dataclass(frozen=True)
class Element:
    """One member of a sequence. `leading` comments have lines of their own, `trailing` ends its line."""

    doc: Doc
    leading: tuple[str, ...] = ()
    trailing: str | None = None


@dataclass(frozen=True)
class Concat:
    """Documents one behind the other."""

    parts: tuple[Doc, ...]

    @cached_property
    def flat(self) -> str | None:
        texts = [flat(part) for part in self.parts]
        return None if None in texts else "".join(text for text in texts if text is not None)


@dataclass(frozen=True)
class Sequence:
    """Elements between brackets, as sublayers of a layer (`+`), or as words side by side.

    bracketed: broken behind the opening bracket, filled with as many elements a line as fit.
    chain: broken before each `+`; begins on a line of its own if `own_line`.
    words: broken where a line is full.
    """

    kind: Literal["bracketed", "chain", "words"]
    elements: tuple[Element, ...]
    separator: str
    open: str = ""
    close: str = ""
    pad: str = ""
    dangling: tuple[str, ...] = field(default=())  # comments behind the last element

    @cached_property
    def flat(self) -> str | None:
        texts: list[str] = []
        for element in self.elements:
            text = flat(element.doc)
            if text is None or element.leading or element.trailing:
                return None
            texts.append(text)
        return None if self.dangling else self.open + self.pad + self.separator.join(texts) + self.pad + self.close


@dataclass(frozen=True)
class Body:
    """What stands behind a `=`: on the same line if it fits, else on lines of its own."""

    doc: Doc
    comment: str | None = None  # behind the `=`
    leading: tuple[str, ...] = ()

    @cached_property
    def flat(self) -> str | None:
        text = flat(self.doc)
        return None if text is None or self.comment or self.leading else " " + text


Doc = str | Concat | Sequence | Body


def flat(doc: Doc) -> str | None:
    """The document on one line, if no comment forbids that."""
    return doc if isinstance(doc, str) else doc.flat


def layout(doc: Doc) -> list[str]:
    """The document as lines."""
    printer = _Printer()
    printer.put(doc, 0, 0)
    return [*printer.lines, printer.line]


class _Printer:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.line = ""
        self.ended = False  # a trailing comment has ended the current line

    def put(self, doc: Doc, indent: int, tail: int) -> None:
        """Print `doc`; `tail` columns of the line belong to what follows it."""
        text = flat(doc)
        if isinstance(doc, str):
            self.line += doc
        elif text is not None and self._fits(text, tail):
            self.line += text
        elif isinstance(doc, Concat):
            self._concat(doc, indent, tail)
        elif isinstance(doc, Body):
            self._body(doc, indent + INDENT, tail)
        else:
            {"bracketed": self._bracketed, "chain": self._chain, "words": self._words}[doc.kind](doc, indent, tail)

    def _concat(self, doc: Concat, indent: int, tail: int) -> None:
        behind = tail
        tails: list[int] = []
        for part in reversed(doc.parts):
            tails.append(behind)
            behind = 0 if isinstance(part, Body) else behind + len(flat(part) or "")
        for part, room in zip(doc.parts, reversed(tails), strict=True):
            self.put(part, indent, room)

    def _body(self, doc: Body, indent: int, tail: int) -> None:
        if doc.comment:
            self.line += "  "
            self._comment(doc.comment)
        self._new_line(indent)
        for comment in doc.leading:
            self._comment(comment)
            self._new_line(indent)
        self.put(doc.doc, indent, tail)

    def _bracketed(self, doc: Sequence, indent: int, tail: int) -> None:
        self.line += doc.open
        inner = indent + INDENT
        fresh = False  # whether a new line has been begun and holds nothing yet
        for i, element in enumerate(doc.elements):
            comma = "," if i + 1 < len(doc.elements) else ""
            text = flat(element.doc)
            follows = i > 0 and not fresh and not self.ended and not element.leading
            if follows and text is not None and self._fits(" " + text, len(comma)):
                self.line += " "
            else:
                self._new_line(inner)
            self._leading(element, inner)
            self.put(element.doc, inner, len(comma))
            self.line += comma
            self._trailing(element)
        for comment in doc.dangling:
            self._new_line(inner)
            self._comment(comment)
        self._new_line(indent)
        self.line += doc.close

    def _chain(self, doc: Sequence, indent: int, tail: int) -> None:
        for i, element in enumerate(doc.elements):
            if i:
                self._new_line(indent)
            self._leading(element, indent)
            self.line += doc.separator.lstrip() if i else ""
            self.put(element.doc, indent, tail if element is doc.elements[-1] else 0)
            self._trailing(element)

    def _words(self, doc: Sequence, indent: int, tail: int) -> None:
        for i, element in enumerate(doc.elements):
            text = flat(element.doc)
            room = tail if element is doc.elements[-1] else 0
            if i and not self.ended and not element.leading and text is not None and self._fits(" " + text, room):
                self.line += doc.separator
            elif i:
                self._new_line(indent + INDENT)
            self._leading(element, indent + INDENT if i or self.line.strip() else indent)
            self.put(element.doc, indent + INDENT * bool(i), room)
            self._trailing(element)

    def _leading(self, element: Element, indent: int) -> None:
        for comment in element.leading:
            if self.line.strip():
                self._new_line(indent)
            self._comment(comment)
            self._new_line(indent)

    def _trailing(self, element: Element) -> None:
        if element.trailing:
            self.line += "  "
            self._comment(element.trailing)

    def _comment(self, text: str) -> None:
        self.line += text
        self.ended = True

    def _new_line(self, indent: int) -> None:
        self.lines.append(self.line.rstrip())
        self.line = " " * indent
        self.ended = False

    def _fits(self, text: str, tail: int) -> bool:
        return not self.ended and len(self.line) + len(text) + tail <= WIDTH
