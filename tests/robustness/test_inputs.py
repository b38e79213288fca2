"""No input, however damaged or hostile, gets anything but a result or a diagnostic, soon and within bounded memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.robustness.command import CPU_SECONDS
from tests.robustness.worker import MEMORY, make

ROOT = Path(__file__).parents[2]
Figure = Callable[[str], None]


def campaign(kind: str, first: int, count: int, figure: Figure) -> None:
    """Give archc `count` inputs in a process of their own, and print what was seen."""
    command = [sys.executable, "-m", "tests.robustness.worker", kind, str(first), str(count)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120 + count, check=False)
    assert done.returncode == 0, f"{kind} from seed {first}: {done.stdout[-300:]}\n{done.stderr[-3000:]}"
    said = json.loads(done.stdout.splitlines()[-1])
    seconds, seed = said["slowest"]
    figure(
        f"{count:,} {kind} inputs from seed {first}: {len(said['failures'])} failures, slowest {seconds:.2f} s of CPU "
        f"(seed {seed}), memory {said['peak'] / 1e6:.0f} MB at most"
    )
    assert not said["failures"], "\n\n".join(said["failures"])
    assert seconds <= CPU_SECONDS
    assert said["peak"] < MEMORY


@pytest.mark.parametrize("kind", ["mutated", "hostile"])
def test_some_inputs(kind: str, figure: Figure) -> None:
    campaign(kind, 0, 60, figure)


@pytest.mark.heavy
@pytest.mark.parametrize("shard", range(4))
def test_20_000_mutated_specs(shard: int, seed: int, figure: Figure) -> None:
    campaign("mutated", seed + shard * 5_000, 5_000, figure)


@pytest.mark.heavy
@pytest.mark.parametrize("shard", range(2))
def test_10_000_hostile_inputs(shard: int, seed: int, figure: Figure) -> None:
    campaign("hostile", seed + shard * 5_000, 5_000, figure)


@pytest.mark.parametrize("count", [1, pytest.param(40, marks=pytest.mark.heavy)])
@pytest.mark.parametrize("kind", ["mutated", "hostile"])
def test_the_real_command_on_a_sample(kind: str, count: int, seed: int, tmp_path: Path, figure: Figure) -> None:
    """The same inputs as a user's shell would give them: whole processes, from a file and from standard input."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    statuses = [0, 0]
    for i in range(seed, seed + count):
        data = make(kind, i)
        (tmp_path / "spec.arch").write_bytes(data)
        arguments = [["check", "spec.arch"], ["analyze", "-"], ["fmt", "-"]][i % 3]
        ran = subprocess.run(
            [sys.executable, "-m", "archc", *arguments],
            input=data, capture_output=True, cwd=tmp_path, env=environment, timeout=60, check=False,
        )  # fmt: skip
        assert ran.returncode in (0, 1), f"seed {i}: {ran.stderr.decode()[-2000:]}"
        assert (b"error[" in ran.stderr) == bool(ran.returncode), f"seed {i}"
        assert b"Traceback" not in ran.stderr, f"seed {i}: {ran.stderr.decode()[-2000:]}"
        assert os.listdir(tmp_path) == ["spec.arch"], f"seed {i}"
        statuses[ran.returncode] += 1
    figure(f"{count} {kind} inputs from seed {seed} through the command: {statuses[0]} fine, {statuses[1]} diagnosed")
