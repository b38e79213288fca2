"""The lines of one source that a diagnostic points at, with its labels drawn under them.

Labels within a line are underlined; the text of the rightmost stands behind its underline, the others
hang below. A label over several lines is drawn as a bar at their left.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from archc.diagnostics.canvas import Row, Style, paint, visible, width
from archc.diagnostics.findings import Label, Source

MAX_COLUMNS = 140  # of a source line; a longer one is cut on both sides of what is pointed at
MARGIN = 40  # characters left standing on each side then


@dataclass(frozen=True, slots=True)
class _Mark:
    """A label in lines (from 1) and characters of the line (from 0); `end` is exclusive."""

    first: int
    start: int
    last: int
    end: int
    text: str
    primary: bool
    style: Style

    @property
    def sign(self) -> str:
        return "^" if self.primary else "-"


class Snippet:
    """The part of one source that labels point into."""

    def __init__(self, source: Source, labels: list[Label], severity: Style) -> None:
        self.source = source
        marks = [_mark(label, severity) for label in labels]
        self.inline = [mark for mark in marks if mark.first == mark.last]
        self.bars = [mark for mark in marks if mark.first != mark.last]
        line, column = source.position(labels[0].span.start)
        self.place = f"{visible(source.name)}:{line}:{column}"
        self.shown = sorted({line for mark in marks for line in (mark.first, mark.last)})
        self.number_width = len(str(self.shown[-1]))

    def lines(self, number_width: int, colour: bool) -> Iterator[str]:
        """What is drawn below the place."""
        blank = " " * (number_width + 1) + paint("|", "frame", colour)
        yield blank
        previous: int | None = None
        for number in self._with_short_gaps():
            if previous is not None and number > previous + 1:
                yield paint("...", "frame", colour)
            previous = number
            rows = self._rows(number)
            yield paint(f"{number:>{number_width}} |", "frame", colour) + _spaced(next(rows), colour)
            for row in rows:
                yield blank + _spaced(row, colour)

    def _with_short_gaps(self) -> list[int]:
        """The lines to show; a gap of one line is filled, for `...` would take as much room."""
        filled = set(self.shown)
        for line, following in zip(self.shown, self.shown[1:], strict=False):
            if following == line + 2:
                filled.add(line + 1)
        return sorted(filled)

    def _rows(self, number: int) -> Iterator[Row]:
        """The source line itself, then what is drawn under it."""
        marks = sorted((mark for mark in self.inline if mark.first == number), key=lambda mark: mark.start)
        line = _Line(self.source.line(number), self._pointed_at(number))
        indent = 2 * len(self.bars)
        yield self._barred(number, head=True).put(indent, line.text)
        for row in _underlines(marks, line, indent):
            yield self._barred(number, row)
        for i, bar in enumerate(self.bars):
            if number == bar.first and not self._opens_line(bar):
                yield _arm(self._barred(number), 2 * i + 1, indent + line.column(bar.start), bar, "")
        for i, bar in enumerate(self.bars):
            if number == bar.last:
                row = self._barred(number)
                yield _arm(row.put(2 * i, "|", bar.style), 2 * i + 1, indent + line.column(bar.end - 1), bar, bar.text)

    def _barred(self, number: int, row: Row | None = None, *, head: bool = False) -> Row:
        """A row of line `number` with the bars that pass it."""
        row = row or Row()
        for i, bar in enumerate(self.bars):
            opens = number == bar.first and self._opens_line(bar)
            if bar.first < number < bar.last or (number == bar.last and head) or (opens and not head):
                row.put(2 * i, "|", bar.style)
            elif opens:
                row.put(2 * i, "/", bar.style)
        return row

    def _opens_line(self, bar: _Mark) -> bool:
        return not self.source.line(bar.first)[: bar.start].strip()

    def _pointed_at(self, number: int) -> list[int]:
        ends = [place for mark in self.inline if mark.first == number for place in (mark.start, mark.end)]
        ends += [bar.start for bar in self.bars if bar.first == number]
        return ends + [bar.end for bar in self.bars if bar.last == number]


class _Line:
    """A source line as it is drawn: cut if it is long, and the column of each of its characters."""

    def __init__(self, text: str, pointed_at: Iterable[int]) -> None:
        self.cut, end = 0, len(text)
        if end > MAX_COLUMNS:
            places = list(pointed_at) or [0]
            self.cut = max(0, min(places) - MARGIN)
            end = min(end, max(max(places), self.cut + MARGIN) + MARGIN, self.cut + MAX_COLUMNS)
        self.lead = "..." if self.cut else ""
        self.kept = text[self.cut : end]
        self.text = self.lead + visible(self.kept) + ("..." if end < len(text) else "")

    def column(self, place: int) -> int:
        """The column at which the character at `place` is drawn."""
        inside = max(0, min(place - self.cut, len(self.kept)))
        behind = max(0, min(place - self.cut - len(self.kept), 1))
        return len(self.lead) + width(visible(self.kept[:inside])) + behind


def _mark(label: Label, severity: Style) -> _Mark:
    source, span = label.span.source, label.span
    first, start = source.position(span.start)
    last, end = source.position(max(span.start, span.end - 1))
    return _Mark(first, start - 1, last, end, label.text, label.primary, severity if label.primary else "secondary")


def _underlines(marks: list[_Mark], line: _Line, indent: int) -> Iterator[Row]:
    """Signs under the labels of one line, with the text of the last label; then what hangs below."""
    if not marks:
        return
    row = Row()
    for mark in sorted(marks, key=lambda mark: mark.primary):
        start, end = (indent + line.column(place) for place in (mark.start, mark.end))
        row.put(start, mark.sign * max(1, end - start), mark.style)
    last = marks[-1]
    alone = all(mark.end <= last.start for mark in marks[:-1])
    if alone and last.text:
        row.put(indent + max(line.column(last.end), line.column(last.start) + 1) + 1, visible(last.text), last.style)
    yield row
    hanging = [mark for mark in (marks[:-1] if alone else marks) if mark.text]
    if hanging:
        yield _strings(hanging, line, indent)
    while hanging:
        mark = hanging.pop()
        yield _strings(hanging, line, indent).put(indent + line.column(mark.start), visible(mark.text), mark.style)


def _strings(marks: list[_Mark], line: _Line, indent: int) -> Row:
    row = Row()
    for mark in marks:
        row.put(indent + line.column(mark.start), "|", mark.style)
    return row


def _arm(row: Row, start: int, end: int, bar: _Mark, text: str) -> Row:
    """From a bar to the character at which its label begins or ends."""
    row.put(start, "_" * max(0, end - start), bar.style).put(end, bar.sign, bar.style)
    return row.put(end + 2, visible(text), bar.style) if text else row


def _spaced(row: Row, colour: bool) -> str:
    text = row.text(colour)
    return " " + text if text else ""
