"""Mamba-2's recurrence: its kernels in the interpreter and compiled for both targets, and what its templates print."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from archc.codegen.kernels import render

from .ssds import SSDS, Case, ssd_inputs

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from .test_compile import Compiled, compiled  # noqa: E402, F401

ROOT = Path(__file__).parents[2]
MOST_LINES = 250  # of a rendered file
MOST_STACK_BYTES = 256  # of a thread on sm_90: forward has 128 registers, so that four programs share a multiprocessor
MOST_STACK_BYTES_80 = (
    768  # on sm_80, for which nothing was tuned: dx and the scores there take more than four warps have
)
KERNELS = {"decay", "states", "output", "grad_states", "values", "keys", "grad_decay", "step"}


@pytest.mark.parametrize("name", SSDS)
def test_interpreter(folder: Path, name: str) -> None:
    command = [sys.executable, "-m", "tests.kernels.interpreted_ssd", str(folder), name]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]


def launch_all(package: ModuleType, name: str, case: Case) -> None:
    """Both passes and a step in bfloat16."""
    modules = (
        importlib.import_module(f"{package.__name__}.{name}{part}_kernels") for part in ("", "_backward", "_step")
    )
    kernels, gradients, steps = modules
    inputs = ssd_inputs(SSDS[name], case, torch.bfloat16)
    y, final = kernels.forward(*inputs.values())
    gradients.backward(y, final if case.stateful else None, *inputs.values())
    *token, positions, _ = (
        value[:, :1] if value is not None and value.shape[:2] == (case.batch, case.length) else value
        for value in inputs.values()
    )
    steps.step(*token, positions, final)


@pytest.mark.parametrize(
    "case",
    [
        Case(2, 128, packed=False, stateful=False),
        pytest.param(Case(2, 128, packed=True, stateful=True), marks=pytest.mark.heavy),
    ],
    ids=["one document", "packed with states"],
)
def test_compiles(package: ModuleType, compiled: Compiled, case: Case) -> None:  # noqa: F811
    launch_all(package, "ssd_n128", case)
    assert {kernel for kernel, *_ in compiled} == {f"_{kernel}_kernel" for kernel in KERNELS}
    for kernel, target, registers, stack in sorted(set(compiled)):
        print(f"{kernel} sm_{target}: {registers} registers, {stack} bytes of stack")
        assert stack <= (MOST_STACK_BYTES if target == 90 else MOST_STACK_BYTES_80)


@pytest.mark.parametrize("name", SSDS)
def test_rendered_text(name: str) -> None:
    files = render(SSDS[name])
    assert files == render(SSDS[name])
    for file, text in files.items():
        assert file.startswith(name)
        assert len(text.splitlines()) <= MOST_LINES
        assert "archc" not in text
        ast.parse(text)


def test_an_unused_option_leaves_no_trace() -> None:
    for text in render(SSDS["ssd"]).values():
        assert "DT_MIN" not in text
        assert "unlimited" not in text or "_grad_decay_kernel" in text


def test_sizes_without_kernels_say_so() -> None:
    (text,) = render(SSDS["ssd_plain"]).values()
    assert "the plain torch form in `ssd_chunks.py` on every device" in text
    assert "use_triton" not in text
