"""Specs from files, standard input and the command line, as sources. What cannot be read is a diagnostic."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import BinaryIO

from archc.diagnostics import Diagnostic, DiagnosticError, Source

STANDARD_INPUT = "-"
MAX_BYTES = 4 * 2**20  # the parser's own limit is lower; this one keeps an endless file out of memory


def read(name: str) -> Source:
    """The spec in the file `name`; `-` is standard input. Raises DiagnosticError."""
    if name == STANDARD_INPUT:
        return Source("<stdin>", _decoded(sys.stdin.buffer, "standard input"))
    try:
        with Path(name).open("rb") as file:
            return Source(name, _decoded(file, name))
    except (OSError, ValueError) as failure:
        raise DiagnosticError(unreadable(name, failure)) from None


def unreadable(name: str, failure: OSError | ValueError) -> Diagnostic:
    reason = (failure.strerror if isinstance(failure, OSError) else None) or str(failure)
    return Diagnostic(
        "unreadable-file", f"cannot read {name}: {reason}", help="a spec is a text file; `-` reads standard input"
    )


def _decoded(file: BinaryIO, name: str) -> str:
    data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        message = f"{name} has more than {MAX_BYTES // 2**20} MiB, and a spec is a page of text"
        raise DiagnosticError(Diagnostic("source-too-large", message))
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as failure:
        message = f"{name} is not UTF-8 text: byte {failure.start} is 0x{data[failure.start]:02x}"
        raise DiagnosticError(Diagnostic("not-text", message, help="save the spec as UTF-8")) from None
