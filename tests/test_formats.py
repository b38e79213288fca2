"""Diagnostics for programs: JSON, SARIF and GitHub's annotations say the same as the text, and nothing breaks them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from archc.diagnostics import Diagnostic, Label, Source, Span
from archc.diagnostics.formats import as_github, as_json, as_sarif

ROOT = Path(__file__).parents[1]
WRONG = str(Path("tests") / "errors" / "uneven-heads.arch")
FINE = str(Path("specs") / "jamba_tiny.arch")

TEXT = "vocab 日本 4\nlet a = <\n  mamba,\n>\n"
SOURCE = Source("a b:c,d%.arch", TEXT)


def finding(start: int, end: int, *, help: str | None = "one\ntwo", severity: Any = "error") -> Diagnostic:
    labels = (Label(Span(SOURCE, start, end), "here", True), Label(Span(SOURCE, 0, 5), "there"))
    return Diagnostic("uneven-heads", "100% wrong: a, b", labels, help, severity)


def archc(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "archc", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120, check=False
    )


def test_sarif() -> None:
    found = json.loads(as_sarif([finding(6, 8), finding(12, 21), Diagnostic("no-place", "m")], "1.2"))
    assert found["version"] == "2.1.0"
    (run,) = found["runs"]
    assert (run["tool"]["driver"]["name"], run["tool"]["driver"]["version"]) == ("archc", "1.2")
    assert run["columnKind"] == "unicodeCodePoints"
    rules = run["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == ["no-place", "uneven-heads"]
    assert rules[1]["shortDescription"]["text"].startswith("In grouped attention")
    one, two, three = run["results"]
    assert [result["ruleIndex"] for result in (one, two, three)] == [1, 1, 0]
    assert (one["level"], one["message"]["text"]) == ("error", "100% wrong: a, b\none\ntwo")
    (place,) = one["locations"]
    assert place["physicalLocation"] == {
        "artifactLocation": {"uri": "a%20b%3Ac%2Cd%25.arch"},
        "region": {"startLine": 1, "startColumn": 7, "endLine": 1, "endColumn": 9},
    }
    assert place["message"]["text"] == "here"
    assert one["relatedLocations"][0]["physicalLocation"]["region"]["endColumn"] == 6
    assert two["locations"][0]["physicalLocation"]["region"] == {
        "startLine": 2, "startColumn": 2, "endLine": 3, "endColumn": 1,
    }  # fmt: skip
    assert three["locations"] == []


def test_github() -> None:
    lines = as_github([finding(6, 8), finding(12, 21, help=None, severity="warning"), Diagnostic("x", "m")]).split("\n")
    assert lines == [
        "::error title=uneven-heads,file=a b%3Ac%2Cd%25.arch,line=1,endLine=1,col=7,endColumn=9"
        "::100%25 wrong: a, b%0Aone%0Atwo",
        "::warning title=uneven-heads,file=a b%3Ac%2Cd%25.arch,line=2,endLine=3::100%25 wrong: a, b",
        "::error title=x::m",
    ]


def test_nothing_to_say() -> None:
    assert json.loads(as_json([])) == []
    assert json.loads(as_sarif([], "1"))["runs"][0]["results"] == []
    assert as_github([]) == ""


@pytest.mark.parametrize("form", ["json", "sarif", "github"])
def test_findings_of_check_are_its_result(form: str) -> None:
    ran = archc("check", "--format", form, WRONG, FINE)
    assert (ran.returncode, ran.stderr) == (1, "")
    assert "uneven-heads" in ran.stdout
    assert "fine" not in ran.stdout
    if form != "github":
        json.loads(ran.stdout)
    fine = archc("check", FINE, ARCHC_FORMAT=form)
    assert (fine.returncode, fine.stderr) == (0, "")


def test_json_is_the_same_by_both_names() -> None:
    assert archc("check", "--json", WRONG).stdout == archc("check", "--format", "json", WRONG).stdout


def test_other_commands_keep_their_results_apart(tmp_path: Path) -> None:
    failed = archc("analyze", WRONG, ARCHC_FORMAT="sarif")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert json.loads(failed.stderr)["runs"][0]["results"][0]["ruleId"] == "uneven-heads"
    missing = archc("fmt", "--format", "github", str(tmp_path / "none.arch"))
    assert (missing.returncode, missing.stdout) == (1, "")
    assert missing.stderr.startswith("::error title=unreadable-file::cannot read ")
    written = archc("build", "--format", "json", FINE, "-o", str(tmp_path / "out"))
    assert (written.returncode, json.loads(written.stderr)) == (0, [])


def test_a_format_that_is_none() -> None:
    assert archc("check", "--format", "xml", FINE).returncode == 2


def test_fmt_shows_a_diff(tmp_path: Path) -> None:
    path = tmp_path / "spec.arch"
    path.write_text("vocab   8\nd_model 8\nmlp none\nblock <mamba>")
    ran = archc("fmt", "--diff", str(path))
    assert ran.returncode == 1
    assert path.read_text().startswith("vocab   8\n")
    assert "-block <mamba>\n\\ No newline at end of file\n" in ran.stdout
    patch = ran.stdout.replace(str(path), path.name)
    command = ["git", "apply", "-p0", "-"]
    done = subprocess.run(command, input=patch, text=True, cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert archc("fmt", "--check", str(path)).returncode == 0
