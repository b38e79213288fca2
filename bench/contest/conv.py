"""Rows of the causal convolution."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from .measure import Contest, Row, backward, call, peer

HALF = torch.bfloat16


def row(batch: int, length: int, channels: int, reverse: bool, package: Any) -> Contest:
    """Channel-last for both; as a slice of a wider projection, which neither has to copy."""
    random = partial(torch.randn, device="cuda", dtype=HALF)
    x = random(batch, length, 2 * channels)[..., :channels].detach().requires_grad_()
    weight, bias = (random(*shape).requires_grad_() for shape in ((channels, 1, 4), (channels,)))
    grad = random(batch, length, channels)
    theirs = peer("causal_conv1d", "causal_conv1d_fn")
    mine = partial(package.causal_conv1d, x, weight, bias)

    def other() -> torch.Tensor:
        y: torch.Tensor = theirs(x.transpose(1, 2), weight[:, 0], bias, activation="silu")
        return y.transpose(1, 2)

    size = batch * length * channels * 2
    if reverse:
        leaves = [x, weight, bias]
        peers = {"causal-conv1d": theirs if isinstance(theirs, str) else backward(leaves, other, grad)}
        return Contest(backward(leaves, mine, grad), peers, bytes=3 * size)
    run = torch.no_grad()
    return Contest(run(mine), {"causal-conv1d": call(theirs, run(other))}, bytes=2 * size)


def rows() -> list[Row]:
    """The rows."""
    made = []
    for channels in (8192, 5376):
        shape, sizes = f"B4 L4096 D{channels} W4", (4, 4096, channels)
        asked = channels == 8192
        forward, reverse = partial(row, *sizes, False), partial(row, *sizes, True)
        made.append(Row("conv fwd", shape, forward, faster=0.98 if asked else None, floors=1.35))
        made.append(Row("conv bwd", shape, reverse, faster=0.98 if asked else None, floors=1.6))
    return made
