"""docs/language.md: its tables are those of the registries, and all that it shows is run."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from archc import compiler
from archc.diagnostics import Source
from archc.elaborate.settings import ModelSettings
from archc.layers.kind import Kind, Part, fields_of
from archc.passes.workload import Workload

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "language.md"
TEXT = PAGE.read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```arch\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
WITHOUT = {"vocab": "vocab 32000", "d_model": "d_model 1024", "mlp": "mlp none"}  # what short examples leave out


def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference", ROOT / "scripts" / "reference.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def completed(text: str) -> str:
    said = set(re.findall(r"(?:^|;) *(\w+)", text, re.MULTILINE))
    return "".join(f"{line}\n" for name, line in WITHOUT.items() if name not in said) + text


def test_the_page_is_current() -> None:
    if os.environ.get("ARCHC_UPDATE_GOLDENS"):
        subprocess.run([sys.executable, "scripts/reference.py"], cwd=ROOT, check=True)
    text = PAGE.read_text(encoding="utf-8")
    assert reference().updated(text) == text, "python scripts/reference.py writes it anew"


def test_it_says_everything() -> None:
    assert set(reference().SECTIONS) == set(re.findall(r"<!-- (?!end)(\w+) -->", TEXT))
    for word in Kind.known:
        assert f"\n### `{word}`\n" in TEXT, word
    for cls in (ModelSettings, *Kind.known.values(), *Part.known.values()):
        for name, info in fields_of(cls).items():
            assert f"| `{name}` |" in TEXT, name
            assert info.doc, f"{cls.__name__}.{name} needs a line of documentation"
            assert f" {info.doc.replace('|', chr(92) + '|')} |" in TEXT, name


@pytest.mark.parametrize("text", EXAMPLES, ids=range(len(EXAMPLES)))
def test_examples_are_models(text: str) -> None:
    model = compiler.load(Source("language.md", completed(text)))
    assert model.warnings == ()
    assert compiler.analyse(model, Workload(4096)).params.total > 0
    assert compiler.build(model)["spec.arch"] == completed(text)


def test_there_are_examples_of_everything() -> None:
    together = "\n".join(EXAMPLES)
    for word in ("model", "let", "share", "block", "every", "offset", "at", "<-", "||", " + ", "top2/", "#", ";"):
        assert word in together, word
