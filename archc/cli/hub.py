"""`archc import` and `archc export`: the configurations of other programs to specs and back."""

from __future__ import annotations

import json
import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from archc import compiler
from archc.cli.arguments import Expression, Settings, Spec, load, source
from archc.cli.inputs import STANDARD_INPUT, read
from archc.cli.talk import DIAGNOSTICS, say
from archc.diagnostics import Diagnostic, DiagnosticError, Source, to_json

CONFIG = "config.json"


class Format(StrEnum):
    """What `archc export` writes."""

    HF_CONFIG = "hf-config"


From = Annotated[
    str, typer.Argument(metavar="CONFIG|-", help="A config.json, or a folder with one; - reads standard input.")
]
Name = Annotated[str | None, typer.Option("--name", metavar="NAME", help="The model's name; the family's by default.")]
Out = Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="Written there, not printed.")]
Force = Annotated[bool, typer.Option(help="Replace a file that holds something else.")]


def import_model(
    config: From,
    out: Out = None,
    name: Name = None,
    force: Force = False,
    as_json: Annotated[bool, typer.Option("--json", help="The spec, or the findings, as JSON.")] = False,
) -> None:
    """The spec of a model that transformers has a configuration of."""
    try:
        spec = compiler.imported(_found(config), name)
    except DiagnosticError as failure:
        if not as_json:
            raise
        say(json.dumps({"spec": None, "findings": [to_json(finding) for finding in failure.diagnostics]}, indent=2))
        raise typer.Exit(DIAGNOSTICS) from None
    _give(json.dumps({"spec": spec, "findings": []}, indent=2) if as_json else spec, out, force)


def export_model(
    spec: Spec = None,
    out: Out = None,
    to: Annotated[Format, typer.Option(help="For whom.")] = Format.HF_CONFIG,
    expression: Expression = None,
    settings: Settings = None,
    force: Force = False,
) -> None:
    """The configuration of a spec for another program."""
    text = compiler.exported(load(source(spec, expression), settings), to.value)
    _give(text, out / CONFIG if out is not None and out.is_dir() else out, force)


def _found(config: str) -> Source:
    """The text that is imported."""
    folder = config != STANDARD_INPUT and os.path.isdir(config)
    return read(os.path.join(config, CONFIG) if folder else config)


def _give(text: str, out: Path | None, force: bool) -> None:
    """Print a result, or write it where nothing else stands."""
    from archc.cli.folder import write_file

    if out is None:
        say(text)
        return
    data = (text if text.endswith("\n") else text + "\n").encode()
    if out.exists() and not force and out.read_bytes() != data:
        message = f"{out} holds something else; nothing was written"
        raise DiagnosticError(Diagnostic("would-overwrite", message, help="--force replaces it"))
    try:
        write_file(out, data)
    except OSError as failure:
        message = f"cannot write {out}: {failure.strerror}"
        raise DiagnosticError(Diagnostic("unwritable-folder", message)) from None
    say(f"wrote {out}")
