"""Every kernel, forward and backward, in Triton's interpreter at odd lengths: see `interpreted.py`."""

import subprocess
import sys
from pathlib import Path

import pytest

from .variants import VIEWS

pytest.importorskip("triton")
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", VIEWS)
def test_interpreter(folder: Path, name: str) -> None:
    command = [sys.executable, "-m", "tests.kernels.interpreted", str(folder), name]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
