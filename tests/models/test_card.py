"""The line of the design card under a five-line header: it parses, analyses, builds and is what it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from archc.compiler import build, load
from archc.diagnostics import Source
from archc.passes.params import params
from archc.passes.workload import Workload

CARD = """\
model card
vocab 65536
d_model 4096
norm rms(eps=1e-6)
mlp swiglu(14336)
block x4 < mamba x7, attn gqa(32,8) > moe every 2 top2/16
"""
COUNT = """\
import torch
from card.model import Model
with torch.device("meta"):
    print(sum(parameter.numel() for parameter in Model().parameters()))
"""


def test_card(tmp_path: Path) -> None:
    model = load(Source("card.arch", CARD))
    total = params(model.graph, Workload(context=4096)).total
    # Jamba v0.1 has the same layers, and norms of dt, B and C (256 + 2 * 16) in each of its 28 Mamba layers.
    assert total == 51_570_323_328 - 28 * 288
    package = tmp_path / "card"
    package.mkdir()
    for name, text in build(model).items():
        (package / name).write_text(text, encoding="utf-8")
    counted = subprocess.run([sys.executable, "-c", COUNT], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert int(counted.stdout) == total
