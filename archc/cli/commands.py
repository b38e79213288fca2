"""The commands, and where each is. Only what is asked for is imported, so that each starts as fast as it can."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import typer


class Command(NamedTuple):
    """The function of a command in a module beside this one, and what its parser is told."""

    module: str
    function: str
    context: dict[str, Any] | None = None

    def load(self) -> Any:
        return getattr(import_module(f"archc.cli.{self.module}"), self.function)

    @property
    def doc(self) -> str:
        """Its docstring, read from the source without importing it."""
        tree = ast.parse(Path(__file__).with_name(f"{self.module}.py").read_text(encoding="utf-8"))
        functions = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == self.function)
        return ast.get_docstring(next(functions)) or ""


COMMANDS = {
    "analyze": Command("analyzing", "analyze"),
    "check": Command("checking", "check"),
    "fmt": Command("checking", "fmt"),
    "build": Command("building", "build"),
    "diff": Command("comparing", "diff"),
    "explain": Command("explaining", "explain"),
    "graph": Command("drawing", "graph"),
    "init": Command("starting", "init"),
    # Megatron's own options follow the name of a checkpoint, and are read there.
    "import": Command("hub", "import_model", {"allow_extra_args": True, "ignore_unknown_options": True}),
    "export": Command("hub", "export_model"),
    "schema": Command("telling", "schema"),
    "doctor": Command("doctor", "doctor"),
    "version": Command("telling", "version"),
}


def app(arguments: Sequence[str], *, complete: bool = False) -> typer.Typer:
    """The command line with the command that `arguments` name. If none is, with all of them, as far as help shows them.

    A shell that completes words asks for the `complete` one, with every option.
    """
    made = typer.Typer(
        name="archc",
        help="The architecture compiler for hybrid language models: from a spec to exact budgets and a package.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    made.callback()(_nothing)  # so that a command line of one command, too, wants its name
    asked = next((word for word in arguments if not word.startswith("-")), None)
    for name, command in COMMANDS.items():
        if complete or name == asked:
            made.command(name, context_settings=command.context)(command.load())
        elif asked not in COMMANDS:
            made.command(name, help=command.doc)(_nothing)
    return made


def _nothing() -> None:
    pass
