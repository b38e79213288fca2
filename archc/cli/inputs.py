"""Specs from files, standard input and the command line, as sources. What cannot be read is a diagnostic."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import BinaryIO

from archc import text
from archc.diagnostics import Diagnostic, DiagnosticError, Source

STANDARD_INPUT = "-"
STDIN_NAME = "<stdin>"
MAX_BYTES = 4 * 2**20  # what is refused is much shorter; this keeps an endless file out of memory


def read(name: str) -> Source:
    """The spec in the file `name`; `-` is standard input. Raises DiagnosticError."""
    if name == STANDARD_INPUT:
        return _decoded(sys.stdin.buffer, STDIN_NAME)
    try:
        with Path(name).open("rb") as file:
            return _decoded(file, name)
    except (OSError, ValueError) as failure:
        raise DiagnosticError(unreadable(name, failure)) from None


def unreadable(name: str, failure: OSError | ValueError) -> Diagnostic:
    reason = (failure.strerror if isinstance(failure, OSError) else None) or str(failure)
    return Diagnostic(
        "unreadable-file", f"cannot read {name}: {reason}", help="a spec is a text file; - reads standard input"
    )


def _decoded(file: BinaryIO, name: str) -> Source:
    return text.source(name, file.read(MAX_BYTES))
