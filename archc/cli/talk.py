"""What the command line says: diagnostics on standard error, results on standard output, and how it exits."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

from archc.diagnostics import Diagnostic, render

FINE = 0
DIAGNOSTICS = 1
USAGE = 2
BUDGET_EXCEEDED = 3
WOULD_OVERWRITE = 4
INTERNAL = 70

# What an exit status says, for everyone who documents it.
STATUSES = {
    FINE: "done; warnings may have been printed",
    DIAGNOSTICS: "diagnostics: something is wrong with a spec or a file, or `fmt --check` would change one",
    USAGE: "the command line itself is wrong",
    BUDGET_EXCEEDED: "a figure is above what the command line allows",
    WOULD_OVERWRITE: "a file that a person edited is in the way; nothing was written",
    INTERNAL: "a mistake of archc",
}

PLAIN_WIDTH = 120  # columns of a report that no terminal limits


def tell(diagnostics: Iterable[Diagnostic]) -> None:
    """Every diagnostic, with an empty line between two."""
    colour = _coloured()
    texts = [render(diagnostic, colour=colour) for diagnostic in diagnostics]
    if texts:
        print("\n\n".join(texts), file=sys.stderr)


def internal_error(failure: BaseException) -> Diagnostic:
    reason = f"{type(failure).__name__}: {failure}" if str(failure) else type(failure).__name__
    return Diagnostic(
        "internal-error",
        f"archc failed: {reason}",
        help="this is a mistake of archc: please report it with the spec\nARCHC_TRACEBACK=1 shows where it happened",
    )


def version() -> str:
    """The version that is installed; pyproject.toml alone says it."""
    from importlib import metadata

    try:
        return metadata.version("archc")
    except metadata.PackageNotFoundError:
        return "unknown"


def say(text: str) -> None:
    """A result."""
    sys.stdout.write(text if text.endswith("\n") else text + "\n")


def show(renderable: object) -> None:
    """A result that rich lays out. Where no terminal limits it, lines are of one width on every machine."""
    from rich.console import Console

    if sys.stdout.isatty():
        Console(highlight=False).print(renderable)
        return
    width = None if "COLUMNS" in os.environ else PLAIN_WIDTH
    console = Console(highlight=False, width=width)
    with console.capture() as captured:
        console.print(renderable)
    say("\n".join(line.rstrip() for line in captured.get().splitlines()))


def _coloured() -> bool:
    return sys.stderr.isatty() and "NO_COLOR" not in os.environ
