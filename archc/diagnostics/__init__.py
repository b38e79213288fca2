"""Diagnostics: where in a source, what is wrong, what to do about it.

A `Diagnostic` is data; `render` turns it into text in the manner of rustc and ruff. Nothing here
prints or exits: `archc.cli` does.

A code is declared by its page `explain/CODE.md`: `error` refuses a code without one. A page says what
is wrong and why it is refused, with an example of each kind; a test wants the pair
`tests/errors/CODE.arch` (input) and `CODE.txt` (what `render` says of it) for every page.
"""

from archc.diagnostics.findings import (
    Diagnostic,
    DiagnosticError,
    Label,
    Report,
    Severity,
    Source,
    Span,
    error,
    nearest,
    warning,
)
from archc.diagnostics.pages import codes, explain
from archc.diagnostics.render import render, to_json

__all__ = [
    "Diagnostic",
    "DiagnosticError",
    "Label",
    "Report",
    "Severity",
    "Source",
    "Span",
    "codes",
    "error",
    "explain",
    "nearest",
    "render",
    "to_json",
    "warning",
]
