"""What a finding is: a span in a source, labels, a code, a sentence, a way out."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from archc.diagnostics.pages import declared

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Source:
    """The text of one spec and the name that it is shown under."""

    name: str
    text: str
    _line_starts: list[int] = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def line_starts(self) -> list[int]:
        """The offset of each line's first character; found when first asked for, for errors alone want it."""
        if not self._line_starts:
            starts = [0]
            while (end := self.text.find("\n", starts[-1])) >= 0:
                starts.append(end + 1)
            self._line_starts.extend(starts)
        return self._line_starts

    def position(self, offset: int) -> tuple[int, int]:
        """1-based line and 1-based column (in code points) of a character offset."""
        line = bisect_right(self.line_starts, offset) - 1
        return line + 1, offset - self.line_starts[line] + 1

    def line(self, number: int) -> str:
        """The text of a 1-based line, without its line end."""
        start = self.line_starts[number - 1]
        end = self.line_starts[number] if number < len(self.line_starts) else len(self.text)
        return self.text[start:end].rstrip("\r\n")


@dataclass(frozen=True, slots=True)
class Span:
    """Half-open range of character offsets `[start, end)` in one source."""

    source: Source = field(repr=False, compare=False)
    start: int
    end: int

    @property
    def text(self) -> str:
        return self.source.text[self.start : self.end]

    def to(self, other: Span) -> Span:
        """The smallest span that covers this one and `other` of the same source."""
        return Span(self.source, min(self.start, other.start), max(self.end, other.end))


@dataclass(frozen=True, slots=True)
class Label:
    """A span with a few words; the primary label is underlined with carets."""

    span: Span
    text: str = ""
    primary: bool = False


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One finding. `code` is a stable kebab-case word, `message` one sentence that stands alone."""

    code: str
    message: str
    labels: tuple[Label, ...] = ()
    help: str | None = None
    severity: Severity = "error"


class DiagnosticError(Exception):
    """Raised to abandon the construct at hand; `Report.collect` or the compiler catches it."""

    def __init__(self, *diagnostics: Diagnostic) -> None:
        super().__init__(*(d.message for d in diagnostics))
        self.diagnostics = diagnostics


class Report:
    """The findings of one run, in the order in which they were found."""

    def __init__(self) -> None:
        self._diagnostics: list[Diagnostic] = []

    def add(self, *diagnostics: Diagnostic) -> None:
        for diagnostic in diagnostics:
            if diagnostic not in self._diagnostics:
                self._diagnostics.append(diagnostic)

    def __iter__(self) -> Iterator[Diagnostic]:
        return iter(self._diagnostics)

    @property
    def errors(self) -> tuple[Diagnostic, ...]:
        return tuple(d for d in self._diagnostics if d.severity == "error")

    def raise_if_errors(self) -> None:
        if self.errors:
            raise DiagnosticError(*self._diagnostics)


def error(code: str, message: str, span: Span, label: str = "", *more: Label, help: str | None = None) -> Diagnostic:
    """An error with its primary label at `span`."""
    return Diagnostic(declared(code), message, (Label(span, label, primary=True), *more), help)


def warning(code: str, message: str, span: Span, label: str = "", *more: Label, help: str | None = None) -> Diagnostic:
    """A warning with its primary label at `span`."""
    return Diagnostic(declared(code), message, (Label(span, label, primary=True), *more), help, "warning")


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant: at most a third of its letters differ, or one name begins the other."""
    names, small = list(known), name.lower()
    limit = max(len(name), 3) // 3
    close = [(distance(small, other.lower(), limit), other) for other in names]
    found = min((pair for pair in close if pair[0] <= limit), default=None)
    if found:
        return found[1]
    alike = [other for other in names if min(len(name), len(other)) > 2 and _begins(small, other.lower())]
    return alike[0] if len(alike) == 1 else None


def _begins(one: str, other: str) -> bool:
    return one.startswith(other) or other.startswith(one)


def distance(one: str, other: str, limit: int) -> int:
    """How many letters to put in, leave out, change or swap with their neighbour; beyond `limit`, just more than it."""
    if abs(len(one) - len(other)) > limit:
        return limit + 1
    earlier: list[int] = []
    above: list[int] = []
    row = list(range(len(other) + 1))
    for i, char in enumerate(one):
        earlier, above, row = above, row, [i + 1]
        for j, meant in enumerate(other):
            row.append(min(above[j] + (char != meant), above[j + 1] + 1, row[j] + 1))
            if i and j and char == other[j - 1] and one[i - 1] == meant:
                row[-1] = min(row[-1], earlier[j - 1] + 1)
    return row[-1]
