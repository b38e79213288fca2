"""The tour of the README, typed as it stands: build, train for a moment, generate. Every block is accounted for."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from archc.compiler import load
from archc.diagnostics import Source
from tests.test_language import completed

pytest.importorskip("torch")

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"(?P<marker><!-- [^\n]+ -->\n)?^```\w*\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
UNMARKED = [match["text"] for match in BLOCK.finditer(README) if match["marker"] is None]

# Runs of a moment instead of minutes, over files that are here; whatever else is typed is typed as it stands.
SHORTER = {"FILES...": str(ROOT / "README.md"), "--steps 300": "--steps 2 --batch 1 --length 64"}
MORE = {"jamba_tiny.generate": "--tokens 3"}


def kind(text: str) -> str:
    first = text.split(maxsplit=1)[0]
    return {"make": "make", "archc": "shell", "python": "shell"}.get(first, "spec")


def test_every_block_is_run_somewhere() -> None:
    kinds = [kind(text) for text in UNMARKED]
    assert kinds.count("shell") == 2, "the package, which is typed here, and transformers', which test_journey types"
    assert kinds.count("make") == 1
    for text in UNMARKED:
        if kind(text) == "spec":
            whole = completed(text).replace("mlp none", "mlp swiglu(2816)")
            assert load(Source("README.md", whole)).warnings == ()
        if kind(text) == "make":
            makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
            for line in text.splitlines():
                assert re.search(rf"^{line.split()[1]}:.*## ", makefile, re.MULTILINE), line


def test_the_package_is_built_trained_and_asked(tmp_path: Path) -> None:
    (block,) = [text for text in UNMARKED if kind(text) == "shell" and "specs/" in text]
    (tmp_path / "specs").symlink_to(ROOT / "specs")
    folder = tmp_path
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    for line in block.splitlines():
        for long, short in SHORTER.items():
            line = line.replace(long, short)
        words = shlex.split(line)
        if words[0] == "cd":
            folder /= words[1]
            continue
        more = shlex.split(MORE.get(words[2] if words[0] == "python" else "", ""))
        command = [sys.executable, *(["-m", *words] if words[0] == "archc" else words[1:]), *more]
        ran = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert ran.returncode == 0, f"{line}\n{ran.stdout[-1000:]}{ran.stderr[-2000:]}"
    assert (tmp_path / "out" / "run").is_dir()
