"""`archc analyze --verify`: a package measures itself in another process, and differences have an exit code."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from archc.cli import main, verifying
from archc.report.verification import VerificationDocument, json_schema
from tests.goldens.golden import check

from .cases import spec
from .packages import Workshop

torch = pytest.importorskip("torch")

Run = Callable[..., object]
TEXT = spec("tiny", "mlp swiglu(12)", "block x2 < mamba(d_state=4), attn gqa(4,2) rope > moe every 2 top1/2")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.arch"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """The exit code of `archc analyze ARGUMENTS --verify`."""

    def code(*arguments: str) -> object:
        monkeypatch.setattr(sys, "argv", ["archc", "analyze", *arguments, "--verify"])
        with pytest.raises(SystemExit) as stop:
            main()
        return stop.value.code

    return code


def test_what_was_analysed_is_what_is_measured(path: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(str(path), "--batch", "2", "--recompute", "full", "--json") == 0
    document = VerificationDocument.model_validate(json.loads(capsys.readouterr().out))
    assert document.equal
    figures = {comparison.figure for comparison in document.comparisons}
    assert {"parameters", "cache", "forward", "backward", "saved, recompute selective: loss"} <= figures


def test_the_schema_is_the_published_one() -> None:
    check("verification.schema.json", json_schema())


def test_a_difference_is_shown_and_exits_with_1(
    path: Path, run: Run, workshop: Workshop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = workshop(TEXT).module("measure").sizes(1, 48, torch.bfloat16) | {"parameters": 7}
    monkeypatch.setattr(verifying, "measured", lambda *_: sizes)
    assert run(str(path)) == 1
    (line,) = [line for line in capsys.readouterr().out.splitlines() if " 7 " in line]
    assert line.split()[0] == "parameters"
    assert line.split()[-1].startswith("-")


def test_a_process_that_fails_is_a_diagnostic(
    path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path.with_name("torch.py").write_text("raise ImportError('there is none')", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(path.parent))
    assert run(str(path)) == 1
    said = capsys.readouterr().err
    assert said.startswith("error[unmeasured]")
    assert "there is none" in said


@pytest.mark.parametrize("flags", [("--dtype", "fp64"), ("--tp", "2")])
def test_what_no_package_is(path: Path, run: Run, flags: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(str(path), *flags) == 2
    assert "--verify" in capsys.readouterr().err
