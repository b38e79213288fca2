"""The findings about the meaning of a spec: each mistake once, in the order of the text."""

from __future__ import annotations

from collections.abc import Iterator

from archc.diagnostics import Diagnostic, DiagnosticError, Report, Source

MAX_FINDINGS = 50  # after so many, more help nobody


class Findings(Report):
    """A report that drops what was said of the same place, as by each use of a `let`, and sorts by place."""

    def __init__(self, source: Source) -> None:
        super().__init__()
        self._source = source
        self._seen: set[tuple[str, str, int, int, int]] = set()

    def add(self, *diagnostics: Diagnostic) -> None:
        for diagnostic in diagnostics:
            span = diagnostic.labels[0].span
            key = (diagnostic.code, diagnostic.message, id(span.source), span.start, span.end)
            if key not in self._seen:
                self._seen.add(key)
                self._diagnostics.append(diagnostic)

    def __iter__(self) -> Iterator[Diagnostic]:
        return iter(sorted(self._diagnostics, key=self._place))

    @property
    def is_full(self) -> bool:
        """Whether more findings would not be shown."""
        return len(self._diagnostics) >= MAX_FINDINGS

    def raise_if_errors(self) -> None:
        """Raise DiagnosticError with the findings, if an error is among them."""
        if self.errors:
            raise DiagnosticError(*list(self)[:MAX_FINDINGS])

    def _place(self, diagnostic: Diagnostic) -> tuple[bool, int]:
        span = diagnostic.labels[0].span
        return span.source is not self._source, span.start


class Together:
    """Findings of several attempts, raised at once when the outermost `with` ends."""

    def __init__(self) -> None:
        self._depth = 0
        self._failed = False
        self._found: list[Diagnostic] = []

    def __enter__(self) -> Together:
        self._depth += 1
        return self

    def __exit__(self, kind: object, failure: BaseException | None, trace: object) -> bool:
        self._depth -= 1
        caught = isinstance(failure, DiagnosticError)
        if isinstance(failure, DiagnosticError):
            self._failed = True
            self._found += failure.diagnostics
        if self._depth == 0 and self._failed and (failure is None or caught):
            raise DiagnosticError(*self._found) from None
        return caught
