"""Every kernel, forward and backward, in Triton's interpreter at odd lengths: see `interpreted.py`."""

import subprocess
import sys
from pathlib import Path

import pytest

from .variants import VIEWS

pytest.importorskip("triton")
ROOT = Path(__file__).parents[2]


# In every run one of each set of kernels with all its options; the variants with fewer are for CI.
FEWER = {"selective_scan_n16_bare", "selective_scan_n16_gate", "selective_scan_n16_skip"}
FEWER |= {"causal_conv1d_linear", "causal_conv1d_pointwise"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.heavy) if name in FEWER else name for name in VIEWS]
)
def test_interpreter(folder: Path, name: str) -> None:
    command = [sys.executable, "-m", "tests.kernels.interpreted", str(folder), name]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
