"""What the templates are, and what they print: Python, formatted, typed, and nothing that a variant does not use."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import jinja2
import pytest

from archc import codegen
from archc.codegen.kernels import render

from .variants import SCANS, VIEWS

TEMPLATES = sorted((Path(codegen.__file__).parent / "templates" / "kernels").glob("*.jinja"))
MOST_LINES = 300  # of a rendered file; parameter lists of one name a line are most of it
MYPY = """[mypy]
strict = True
[mypy-triton.*]
ignore_missing_imports = True
"""


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_a_template_is_python_around_its_holes(path: Path) -> None:
    source = path.read_text()
    assert "{%" not in source  # options are line statements, which Python takes for comments
    assert "{#" not in source
    ast.parse(re.sub(r"\{\{.*?\}\}", "hole", source))


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_a_template_computes_nothing(path: Path) -> None:
    syntax = jinja2.Environment().parse(re.sub(r"^ *#% *(.*)$", r"{% \1 %}", path.read_text(), flags=re.MULTILINE))
    arithmetic = (jinja2.nodes.Add, jinja2.nodes.Sub, jinja2.nodes.Mul, jinja2.nodes.Div, jinja2.nodes.FloorDiv)
    assert not list(syntax.find_all((*arithmetic, jinja2.nodes.Call)))


@pytest.mark.parametrize("name", VIEWS)
def test_rendered_text(name: str) -> None:
    files = render(VIEWS[name])
    assert files == render(VIEWS[name])
    for file, text in files.items():
        assert file.startswith(name)
        assert text.endswith("\n")
        assert len(text.splitlines()) <= MOST_LINES
        assert "archc" not in text
        ast.parse(text)


def test_an_unused_option_leaves_no_trace() -> None:
    for text in render(SCANS["selective_scan_bare"]).values():
        assert not re.search(r"\b(z|z_ptr|softplus|silu|dt_bias|bias|skip|gate)\b", text)


def test_rendered_files_are_clean(folder: Path) -> None:
    root = Path(__file__).parents[2]
    ruff = [sys.executable, "-m", "ruff"]
    options = ["--config", str(root / "pyproject.toml"), str(folder)]
    for command in ([*ruff, "check", *options], [*ruff, "format", "--check", *options]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.heavy
def test_rendered_files_are_typed(folder: Path) -> None:
    pytest.importorskip("torch")
    config = folder / "mypy.ini"
    config.write_text(MYPY)
    command = [sys.executable, "-m", "mypy", "--config-file", str(config), "-p", "kernels_pkg"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
