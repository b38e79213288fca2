"""Every spec in small, through its own commands: it learns, goes on bitwise from a checkpoint, and generates.

All packages run in one process; most of them only in the heavy suite.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from .cases import SHRUNK
from .packages import Package, Workshop

torch = pytest.importorskip("torch")

LIGHT = ("jamba_tiny", "zamba2_1_2b", "mamba2attn_2_7b")  # between them: experts, shared modules, three mixers
NAMES = [pytest.param(name, marks=() if name in LIGHT else pytest.mark.heavy) for name in SHRUNK]
STEPS, HALF = 30, 15
SMALL = ("--batch", "4", "--length", "16", "--warmup", "3", "--lr", "1e-2", "--eval-every", "0", "--device", "cpu")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Documents of token ids, each of which counts up from where it begins."""
    folder = tmp_path_factory.mktemp("corpus")
    for i in range(16):
        ids = (np.arange(24 + 3 * i) + 5 * i) % 13
        ids.astype(np.uint16).tofile(folder / f"{i:02d}.bin")
    return folder


def train(package: Package, corpus: Path, out: Path, *extra: str) -> dict[int, float]:
    """Run the package's train.py; the loss of each step."""
    log = out.with_suffix(".jsonl")
    flags = ["--steps", str(STEPS), "--checkpoint-every", str(HALF), "--keep", "0", "--ids", "uint16", *SMALL]
    command = ["--data", str(corpus), "--out", str(out), "--log-json", str(log), *flags, "--dtype", "float32", *extra]
    assert package.module("train").main(command) == 0
    records = [json.loads(line) for line in log.read_text().splitlines()]
    return {record["step"]: record["loss"] for record in records if "loss" in record}


def weights(package: Package, checkpoint: Path) -> dict[str, torch.Tensor]:
    shards = package.module("shards").Shards(sorted(checkpoint.glob("*.safetensors")))
    return {name: shards.read(name) for name in shards.names()}


@pytest.mark.parametrize("name", NAMES)
def test_it_learns_resumes_and_generates(
    name: str, corpus: Path, workshop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    package = workshop(SHRUNK[name])
    losses = train(package, corpus, tmp_path / "whole")
    assert list(losses) == list(range(1, STEPS + 1))
    first, last = (sum(losses[step] for step in steps) / 3 for steps in (range(1, 4), range(STEPS - 2, STEPS + 1)))
    assert last < 0.9 * first

    half, end = f"step-{HALF:06d}", f"step-{STEPS:06d}"
    shutil.copytree(tmp_path / "whole" / half, tmp_path / "parts" / half)
    resumed = train(package, corpus, tmp_path / "parts", "--resume")
    assert resumed == {step: losses[step] for step in range(HALF + 1, STEPS + 1)}
    before, after = (weights(package, tmp_path / run / end) for run in ("whole", "parts"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[tensor], after[tensor]) for tensor in before)

    capsys.readouterr()
    prompt = [3, 4, 5, 6]
    command = [
        "--checkpoint",
        str(tmp_path / "whole"),
        "--ids",
        "--prompt",
        " ".join(map(str, prompt)),
        "--tokens",
        "6",
    ]
    assert (
        package.module("generate").main([*command, "--temperature", "0", "--device", "cpu", "--dtype", "float32"]) == 0
    )
    printed = [int(token) for token in capsys.readouterr().out.split()]
    model = package.module("generate").load_model(tmp_path / "whole", torch.device("cpu"), torch.float32)
    tokens = list(prompt)
    with torch.no_grad():
        for _ in range(6):  # the likeliest token of the whole sequence, without a cache
            tokens.append(int(model(torch.tensor([tokens]))[0, -1].argmax()))
    assert printed[-6:] == tokens[-6:]
