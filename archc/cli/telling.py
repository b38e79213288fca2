"""`archc schema` and `archc version`."""

from __future__ import annotations

from archc.cli import talk
from archc.cli.talk import say


def schema() -> None:
    """The JSON Schema of `archc analyze --json`."""
    from archc.report.document import json_schema

    say(json_schema())


def version() -> None:
    """The version of archc."""
    say(f"archc {talk.version()}")
