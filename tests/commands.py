"""The command `archc` in the process of a test."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest

from archc import cli


class Ran(NamedTuple):
    """How a command exited, and what it said."""

    status: int
    out: str
    err: str


Run = Callable[..., Ran]


def runner(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """A function that runs `archc ARGUMENTS`. Never does one give a traceback."""

    def run(*arguments: str, stdin: bytes = b"") -> Ran:
        monkeypatch.delenv("COLUMNS", raising=False)  # which workers of pytest-xdist set
        monkeypatch.setattr(sys, "argv", ["archc", *arguments])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        assert isinstance(stop.value.code, int)
        return Ran(stop.value.code, out, err)

    return run
