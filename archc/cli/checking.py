"""`archc check` and `archc fmt`: what is wrong with specs, and how they are written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from archc import text as texts
from archc.cli.arguments import Expression, Settings, Specs, named
from archc.cli.inputs import STDIN_NAME
from archc.cli.talk import DIAGNOSTICS, Form, say, tell, write_as
from archc.diagnostics import Diagnostic, DiagnosticError

if TYPE_CHECKING:
    from archc.loading import Model

Format = Annotated[Form | None, typer.Option("--format", help="How diagnostics are written; $ARCHC_FORMAT, or text.")]
Json = Annotated[bool, typer.Option("--json", help="The same as --format json.")]


def check(
    specs: Specs = None,
    expression: Expression = None,
    settings: Settings = None,
    form: Format = None,
    as_json: Json = False,
    lint: Annotated[bool, typer.Option("--lint", help="Say what is legal and yet unwise, too.")] = False,
) -> None:
    """Find every mistake in specs, and write nothing."""
    from archc.loading import load  # fmt does without

    is_text = write_as("json" if as_json else form, results=True)
    findings: list[Diagnostic] = []
    for spec in named(specs, expression):
        try:
            model = load(spec(), settings or ())
            found = (*model.warnings, *(_lint(model) if lint else ()))
        except DiagnosticError as failure:
            found = failure.diagnostics
        findings += found
        if is_text and not found:
            say(f"{spec().name}: fine")
    tell(findings)
    if any(finding.severity == "error" for finding in findings):
        raise typer.Exit(DIAGNOSTICS)


def fmt(
    specs: Specs = None,
    check_only: Annotated[bool, typer.Option("--check", help="Write nothing; exit 1 if a file would change.")] = False,
    diff: Annotated[bool, typer.Option("--diff", help="Write nothing; show what would change.")] = False,
    form: Format = None,
) -> None:
    """Bring specs into the one canonical form, comments kept."""
    from archc.cli.folder import write_file

    write_as(form)
    findings: list[Diagnostic] = []
    changed: list[str] = []
    for spec in named(specs, None):
        try:
            text = texts.formatted(spec())
        except DiagnosticError as failure:
            findings += failure.diagnostics
            continue
        name = spec().name
        if name == STDIN_NAME and not check_only and not diff:
            say(text)
        elif text != spec().text:
            changed.append(name)
            if diff:
                say(_difference(name, spec().text, text))
            elif not check_only:
                write_file(Path(name), text.encode())
    for name in changed if not diff else ():
        say(f"{'would reformat' if check_only else 'reformatted'} {name}")
    tell(findings)
    if findings or (changed and (check_only or diff)):
        raise typer.Exit(DIAGNOSTICS)


def _difference(name: str, old: str, new: str) -> str:
    """A unified diff, as patch and git apply take it."""
    from difflib import unified_diff

    lines = unified_diff(old.splitlines(keepends=True), new.splitlines(keepends=True), name, name)
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


def _lint(model: Model) -> tuple[Diagnostic, ...]:
    """On one device of any kind, at the spec's own context."""
    from archc.linting import lint  # not every check needs it
    from archc.passes.workload import DEFAULT_CONTEXT, Workload
    from archc.report.sizing import Request

    return lint(model, Workload(model.graph.settings.context or DEFAULT_CONTEXT), Request(()))
