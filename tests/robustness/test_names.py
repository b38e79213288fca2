"""Whatever names and strings a spec holds, the package is Python that makes its model, and does nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch")

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("first", "count"), [(0, 60), *(pytest.param(i * 2_500, 2_500, marks=pytest.mark.heavy) for i in range(4))]
)
def test_hostile_names(first: int, count: int, seed: int, figure: Callable[[str], None]) -> None:
    begin = seed + first
    command = [sys.executable, "-m", "tests.robustness.named", str(begin), str(count)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, f"from seed {begin}:\n{done.stderr[-3000:]}"
    said = json.loads(done.stdout)
    assert said["refused"]
    assert said["packages"]
    if count > 1_000:  # a model's name is accepted once in fifty times
        assert {f"accepted as {role}" for role in ("model", "share", "let", "comment")} <= said.keys()
    figure(f"{count:,} hostile names from seed {begin}: {said}")
