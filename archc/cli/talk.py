"""What the command line says: diagnostics on standard error, results on standard output, and how it exits."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import ClassVar, Literal, get_args

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

Form = Literal["text", "json", "sarif", "github"]
FORM_VARIABLE = "ARCHC_FORMAT"  # how diagnostics are written, for every command


class _Told:
    """The diagnostics of this run, where they are written as one document."""

    form: Form = "text"
    are_results = False
    findings: ClassVar[list[Diagnostic]] = []


def begin() -> None:
    """Forget what an earlier run in this process was told, and write diagnostics as the environment says."""
    said = os.environ.get(FORM_VARIABLE, "text")
    _Told.form = next((form for form in get_args(Form) if form == said), "text")
    _Told.are_results, _Told.findings = False, []


def write_as(form: Form | None, *, results: bool = False) -> bool:
    """Write diagnostics as `form`, if given; on standard output, if they are the results. Whether that is text."""
    _Told.form = form or _Told.form
    _Told.are_results = results
    return _Told.form == "text"


def tell(diagnostics: Iterable[Diagnostic]) -> None:
    """Every diagnostic, with an empty line between two; as a document, all of them when the run ends."""
    if _Told.form != "text":
        _Told.findings += diagnostics
        return
    colour = _coloured()
    texts = [render(diagnostic, colour=colour) for diagnostic in diagnostics]
    if texts:
        print("\n\n".join(texts), file=sys.stderr)


def end() -> None:
    """Write the document of all diagnostics, if there is to be one."""
    if _Told.form == "text":
        return
    from archc.diagnostics.formats import as_github, as_json, as_sarif  # few runs want them

    found = _Told.findings
    match _Told.form:
        case "json":
            text = as_json(found)
        case "sarif":
            text = as_sarif(found, version())
        case _:
            text = as_github(found)
    if text:
        print(text, file=sys.stdout if _Told.are_results else sys.stderr)
        sys.stdout.flush()


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
