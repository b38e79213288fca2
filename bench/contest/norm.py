"""Rows of the root mean square norm, alone and behind a residual addition."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from .measure import Contest, Row, Run, backward, call, peer

HALF = torch.bfloat16
EPS = 1e-5


def row(tokens: int, width: int, reverse: bool, package: Any) -> Contest:
    x, weight = (
        torch.randn(*shape, device="cuda", dtype=HALF).requires_grad_() for shape in ((tokens, width), (width,))
    )
    grad = torch.randn(tokens, width, device="cuda", dtype=HALF)
    theirs = peer("mamba_ssm.ops.triton.layer_norm", "rms_norm_fn")
    compiled = torch.compile(lambda x, weight: F.rms_norm(x, (width,), weight, EPS), dynamic=False)
    mine = partial(package.rms_norm, x, weight, EPS)
    others: dict[str, Any] = {
        "mamba_ssm Triton": call(theirs, lambda: theirs(x, weight, None, eps=EPS)),
        "torch.compile": partial(compiled, x, weight),
    }
    if not reverse:
        run = torch.no_grad()
        peers: dict[str, Run | str] = {k: v if isinstance(v, str) else run(v) for k, v in others.items()}
        return Contest(run(mine), peers, bytes=4 * x.numel())
    leaves = [x, weight]
    peers = {k: v if isinstance(v, str) else backward(leaves, v, grad) for k, v in others.items()}
    return Contest(backward(leaves, mine, grad), peers, bytes=6 * x.numel())


def rows() -> list[Row]:
    """The rows."""
    sizes, shape = (16_384, 4096), "T16384 D4096"
    return [
        Row("rms_norm fwd", shape, partial(row, *sizes, False), floors=1.15),
        Row("rms_norm bwd", shape, partial(row, *sizes, True), floors=1.5),
    ]
