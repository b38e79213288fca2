"""From a directory of transformers to a package that generates, and back: the commands that people type."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from archc import hub
from tests.commands import Run

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from .hub.configs import random_config  # noqa: E402 (transformers is there)
from .hub.test_against_transformers import rich  # noqa: E402

ROOT = Path(__file__).parents[1]
FAMILIES = [family.name for family in hub.FAMILIES]
CHEAP = "phi3"
Python = Callable[[str], str]  # `python -m COMMAND` in the test's folder; what it says


@pytest.fixture
def inside(tmp_path: Path, archc: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Python:
    """Commands in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    def python(command: str) -> str:
        module, *arguments = command.split()
        if module == "archc":
            ran = archc(*arguments)
            assert ran.status == 0, ran.err
            return ran.out
        assert importlib.import_module(module).main(arguments) == 0
        return capsys.readouterr().out

    return python


@pytest.fixture
def outside(tmp_path: Path) -> Python:
    """Commands in processes of their own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def python(command: str) -> str:
        words = [sys.executable, "-m", *command.split()]
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return python


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.heavy] if name != CHEAP else []) for name in FAMILIES]
)
def test_journey(name: str, inside: Python, tmp_path: Path) -> None:
    travel(name, inside, tmp_path)


@pytest.mark.heavy
def test_journey_by_separate_commands(outside: Python, tmp_path: Path) -> None:
    travel("jamba", outside, tmp_path)


def travel(name: str, python: Python, folder: Path) -> None:
    tied = name != "nemotron_h"  # of which transformers ties none
    config = next(config for seed in range(200) if rich(config := random_config(name, seed), tied))
    torch.manual_seed(0)
    theirs = transformers.AutoModelForCausalLM.from_config(config)
    theirs.save_pretrained(folder / "theirs")

    python("archc import theirs -o model.arch")
    python(f"archc build model.arch -o my_{name}")
    python(f"my_{name}.hf import theirs run")
    said = python(f"my_{name}.generate --checkpoint run --ids --prompt 1,2,3 --tokens 6 --temperature 0")
    python(f"my_{name}.hf export run ours")

    ids = [int(word) for word in said.replace(",", " ").split()]
    assert ids[:-6] in ([], [1, 2, 3])
    assert all(0 <= token < config.vocab_size for token in ids)
    ours = transformers.AutoModelForCausalLM.from_pretrained(folder / "ours")
    assert type(ours) is type(theirs)
    before, after = weights(folder / "theirs"), weights(folder / "ours")
    assert before.keys() == after.keys()
    assert all(torch.equal(after[key], before[key]) for key in before)


def weights(folder: Path) -> dict[str, Any]:
    """The tensors of a directory of transformers."""
    library = pytest.importorskip("safetensors.torch")
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in library.load_file(file).items()}
