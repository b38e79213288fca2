"""The commands. Each reads its spec, asks `archc.compiler`, and says or writes what comes back."""

from __future__ import annotations

import typer

from archc.cli import talk
from archc.cli.analyzing import analyze
from archc.cli.building import build
from archc.cli.checking import check, fmt
from archc.cli.comparing import diff
from archc.cli.doctor import doctor
from archc.cli.drawing import graph
from archc.cli.explaining import explain
from archc.cli.hub import MEGATRON, export_model, import_model
from archc.cli.starting import init
from archc.cli.talk import say

app = typer.Typer(
    name="archc",
    help="The architecture compiler for hybrid language models: from a spec to exact budgets and a PyTorch package.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command()(analyze)
app.command()(check)
app.command()(fmt)


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
app.command()(init)
app.command()(graph)
app.command()(doctor)
app.command(name="import", context_settings=MEGATRON)(import_model)
app.command(name="export")(export_model)
