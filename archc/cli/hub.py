"""`archc import` and `archc export`: the configurations of other programs to specs and back."""

from __future__ import annotations

import json
import os
import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from archc import compiler
from archc.cli.arguments import Expression, Settings, Spec, load, source
from archc.cli.inputs import STANDARD_INPUT, read
from archc.cli.talk import DIAGNOSTICS, say
from archc.diagnostics import Diagnostic, DiagnosticError, Source, to_json

CONFIGS = ("config.json", "lit_config.json")  # as a folder may hold


PATTERN = re.compile(r"[-M*GDE+|/]+")  # of Megatron's letters


class Format(StrEnum):
    """What `archc export` writes: `hub.programs.FORMATS`."""

    HF_CONFIG = "hf-config"
    MEGATRON = "megatron"
    MAMBA_SSM = "mamba-ssm"
    SAMBA = "samba"


From = Annotated[
    str,
    typer.Argument(
        metavar="CONFIG|PATTERN|-",
        help="A config.json, a folder with one, Megatron's arguments, or a pattern with them behind it as options; "
        "- reads standard input.",
    ),
]
Name = Annotated[str | None, typer.Option("--name", metavar="NAME", help="The model's name; the family's by default.")]
Out = Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="Written there, not printed.")]
Force = Annotated[bool, typer.Option(help="Replace a file that holds something else.")]


def import_model(
    context: typer.Context,
    config: From,
    out: Out = None,
    name: Name = None,
    force: Force = False,
    as_json: Annotated[bool, typer.Option("--json", help="The spec, or the findings, as JSON.")] = False,
) -> None:
    """The spec of a model that another program has a configuration of: transformers, state-spaces/mamba, Megatron.

    archc import config.json -o model.arch

    archc import M-M*-M- --hidden-size 1024 --num-attention-heads 16 --vocab-size 32000 ...
    """
    try:
        spec = compiler.imported(_found(config, context.args), name)
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
    family: Annotated[
        str | None, typer.Option(metavar="NAME", help="As phi3; the first that fits unless given.")
    ] = None,
    expression: Expression = None,
    settings: Settings = None,
    force: Force = False,
) -> None:
    """The configuration of a spec for another program."""
    text = compiler.exported(load(source(spec, expression), settings), to.value, family)
    _give(text, out / CONFIGS[0] if out is not None and out.is_dir() else out, force)


def _found(config: str, more: list[str]) -> Source:
    """The text that is imported. What follows a pattern are Megatron's arguments."""
    if PATTERN.fullmatch(config) and config != STANDARD_INPUT and not os.path.exists(config):
        return Source("command line", " ".join(["--hybrid-layer-pattern", config, *more]))
    if more:
        raise typer.BadParameter("only a pattern of Megatron has options of Megatron", param_hint=more[0])
    if config == STANDARD_INPUT or not os.path.isdir(config):
        return read(config)
    names = [name for name in CONFIGS if os.path.exists(os.path.join(config, name))]
    return read(os.path.join(config, *names[:1] or CONFIGS[:1]))


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
