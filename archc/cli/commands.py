"""The commands. Each reads its spec, asks `archc.compiler`, and says or writes what comes back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from archc import compiler
from archc.cli import talk
from archc.cli.analyzing import analyze
from archc.cli.arguments import Expression, Settings, Specs, named
from archc.cli.building import build
from archc.cli.comparing import diff
from archc.cli.explaining import explain
from archc.cli.hub import MEGATRON, export_model, import_model
from archc.cli.inputs import STDIN_NAME
from archc.cli.talk import DIAGNOSTICS, say, tell
from archc.diagnostics import Diagnostic, DiagnosticError, to_json

app = typer.Typer(
    name="archc",
    help="The architecture compiler for hybrid language models: from a spec to exact budgets and a PyTorch package.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Json = Annotated[bool, typer.Option("--json", help="As JSON; `archc schema` describes it.")]

app.command()(analyze)


@app.command()
def check(
    specs: Specs = None,
    expression: Expression = None,
    settings: Settings = None,
    as_json: Json = False,
    lint: Annotated[bool, typer.Option("--lint", help="Say what is legal and yet unwise, too.")] = False,
) -> None:
    """Find every mistake in specs, and write nothing."""
    findings: list[Diagnostic] = []
    for spec in named(specs, expression):
        try:
            model = compiler.load(spec(), settings or ())
            found = (*model.warnings, *(_lint(model) if lint else ()))
        except DiagnosticError as failure:
            found = failure.diagnostics
        findings += found
        if not as_json and not found:
            say(f"{spec().name}: fine")
    if as_json:
        import json

        say(json.dumps([to_json(finding) for finding in findings], indent=2))
    else:
        tell(findings)
    if any(finding.severity == "error" for finding in findings):
        raise typer.Exit(DIAGNOSTICS)


@app.command()
def fmt(
    specs: Specs = None,
    check_only: Annotated[bool, typer.Option("--check", help="Write nothing; exit 1 if a file would change.")] = False,
) -> None:
    """Bring specs into the one canonical form, comments kept."""
    from archc.cli.folder import write_file

    findings: list[Diagnostic] = []
    changed: list[str] = []
    for spec in named(specs, None):
        try:
            text = compiler.formatted(spec())
        except DiagnosticError as failure:
            findings += failure.diagnostics
            continue
        name = spec().name
        if name == STDIN_NAME and not check_only:
            say(text)
        elif text != spec().text:
            changed.append(name)
            if not check_only:
                write_file(Path(name), text.encode())
    for name in changed:
        say(f"{'would reformat' if check_only else 'reformatted'} {name}")
    tell(findings)
    if findings or (check_only and changed):
        raise typer.Exit(DIAGNOSTICS)


@app.command()
def schema() -> None:
    """The JSON Schema of `archc analyze --json`."""
    from archc.report.document import json_schema

    say(json_schema())


@app.command()
def version() -> None:
    """The version of archc."""
    say(f"archc {talk.version()}")


app.command()(diff)
app.command()(explain)
app.command()(build)
app.command(name="import", context_settings=MEGATRON)(import_model)
app.command(name="export")(export_model)


def _lint(model: compiler.Model) -> tuple[Diagnostic, ...]:
    """On one device of any kind, at the spec's own context."""
    from archc.linting import lint  # not every check needs it
    from archc.passes.workload import DEFAULT_CONTEXT, Workload
    from archc.report.sizing import Request

    return lint(model, Workload(model.graph.settings.context or DEFAULT_CONTEXT), Request(()))
