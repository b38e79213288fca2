"""The arguments that several commands have: a spec as file, standard input or text, and settings that win over it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING, Annotated

import typer

from archc.cli.inputs import STANDARD_INPUT, read
from archc.cli.talk import tell
from archc.diagnostics import Source

if TYPE_CHECKING:
    from archc.compiler import Model

Spec = Annotated[str | None, typer.Argument(metavar="SPEC|-", help="A spec; - reads standard input.")]
Specs = Annotated[list[str] | None, typer.Argument(metavar="SPEC|-...", help="Specs; - reads standard input.")]
Expression = Annotated[str | None, typer.Option("--expression", "-e", metavar="TEXT", help="The spec, as text.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="A setting that wins over the spec's."),
]


def source(spec: str | None, expression: str | None) -> Source:
    """The one spec that the command line names."""
    (found,) = named([spec] if spec is not None else None, expression)
    return found()


def named(specs: list[str] | None, expression: str | None) -> list[Callable[[], Source]]:
    """The specs that the command line names; each is read when it is first asked for, and only then can fail."""
    if expression is not None and not specs:
        return [lambda: Source("-e", expression)]
    if expression is not None or not specs:
        raise typer.BadParameter("name a spec, - for standard input, or give one with -e TEXT", param_hint="SPEC")
    if specs.count(STANDARD_INPUT) > 1:
        raise typer.BadParameter("standard input can be read once", param_hint="SPEC")
    return [cache(partial(read, name)) for name in specs]


def load(found: Source, settings: list[str] | None) -> Model:
    """The model; its warnings are told at once."""
    from archc import compiler  # a command that only reads text does without

    model = compiler.load(found, settings or ())
    tell(model.warnings)
    return model
