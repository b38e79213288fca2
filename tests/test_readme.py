"""What the README shows is what the commands print and what the files hold."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
SHOWN = re.compile(
    r"<!-- (?P<how>run|file|class): (?P<what>[^\n]*?) -->\n```(?P<syntax>\w*)\n(?P<text>.*?)```\n", re.DOTALL
)
WIDTH = "110"


def real(how: str, what: str) -> str:
    """The text that belongs under a marker."""
    if how == "file":
        return (ROOT / what).read_text(encoding="utf-8")
    if how == "class":
        path, name = what.split()
        source = (ROOT / path).read_text(encoding="utf-8")
        node = next(n for n in ast.parse(source).body if isinstance(n, ast.ClassDef) and n.name == name)
        return "\n".join(source.splitlines()[node.lineno - 1 : node.end_lineno]) + "\n"
    words = [sys.executable, "-m", *shlex.split(what)]
    environment = {**os.environ, "COLUMNS": WIDTH, "NO_COLOR": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    output = done.stdout + done.stderr
    return "\n".join(line.rstrip() for line in output.strip("\n").splitlines()) + "\n"


def updated(text: str) -> str:
    return SHOWN.sub(
        lambda m: f"<!-- {m['how']}: {m['what']} -->\n```{m['syntax']}\n{real(m['how'], m['what'])}```\n", text
    )


def test_readme_shows_what_is() -> None:
    text = README.read_text(encoding="utf-8")
    assert len(SHOWN.findall(text)) >= 4
    if os.environ.get("ARCHC_UPDATE_GOLDENS"):
        README.write_text(updated(text), encoding="utf-8")
        pytest.skip("README updated")
    assert updated(text) == text


def test_the_language_by_example_holds(tmp_path: Path) -> None:
    section = README.read_text(encoding="utf-8").split("## The language")[1]
    spec = section.split("```")[1].lstrip("\n")
    path = tmp_path / "example.arch"
    path.write_text(spec, encoding="utf-8")
    words = [sys.executable, "-m", "archc", "check", str(path)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
