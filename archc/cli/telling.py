"""`archc schema` and `archc version`."""

from __future__ import annotations

from typing import Annotated

import typer

from archc.cli import talk
from archc.cli.talk import say

Verification = Annotated[bool, typer.Option("--verification", help="That of `archc analyze --verify --json`.")]


def schema(verification: Verification = False) -> None:
    """The JSON Schema of `archc analyze --json`."""
    if verification:
        from archc.report.verification import json_schema as schema_of_verification

        say(schema_of_verification())
        return
    from archc.report.document import json_schema

    say(json_schema())


def version() -> None:
    """The version of archc."""
    say(f"archc {talk.version()}")
