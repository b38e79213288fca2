"""Attention in plain matrix products, in at least float32: for what no fused kernel takes.

Scores are held for a block of queries at once. A soft cap (Gemma 2, arXiv:2408.00118) bends them:

    s = cap tanh(scale q k^T / cap),    p = softmax(s),    y = p v
"""

import torch
from torch import Tensor

from .precision import promote

BLOCK = 256
"""Queries whose scores are held at once."""


def grouped(x: Tensor, groups: int) -> Tensor:
    """`[B, T, H, K]` as `[B, T, G, H / G, K]`."""
    return x.view(*x.shape[:2], groups, -1, x.shape[3])


def math_forward(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float, cap: float | None = None
) -> tuple[Tensor, Tensor]:
    """Attention under a mask `[1 or B, T, S]`, and the rows' log-sum-exp `[B, H, T]`."""
    outs, sums = [], []
    for rows, seen in zip(torch.split(q, BLOCK, 1), torch.split(mask, BLOCK, 1), strict=True):
        scores, _ = _scores(rows, k, seen, scale, cap)
        lse = scores.logsumexp(-1)
        p = (scores - lse[..., None]).exp()
        outs.append(torch.einsum("bgrts,bsgv->btgrv", p, v.to(p.dtype)).flatten(2, 3).to(q.dtype))
        sums.append(lse.flatten(1, 2))
    return torch.cat(outs, 1), torch.cat(sums, 2)


def math_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, mask: Tensor, scale: float, cap: float | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v under a mask `[1 or B, T, S]`."""
    G, compute = k.shape[2], promote(q.dtype)
    dq, dk, dv = [], torch.zeros_like(k, dtype=compute), torch.zeros_like(v, dtype=compute)
    blocks = zip(*(torch.split(x, BLOCK, 1) for x in (q, grad, out, mask)), strict=True)
    for rows, dy, y, seen in blocks:
        scores, slope = _scores(rows, k, seen, scale, cap)
        p = scores.softmax(-1)
        qs, dy, y = (grouped(x.to(compute), G) for x in (rows, dy, y))
        dv += torch.einsum("bgrts,btgrv->bsgv", p, dy)
        dp = torch.einsum("btgrv,bsgv->bgrts", dy, v.to(compute))
        ds = p * (dp - torch.einsum("btgrv,btgrv->bgrt", dy, y)[..., None]) * slope * scale
        dq.append(torch.einsum("bgrts,bsgk->btgrk", ds, k.to(compute)).flatten(2, 3).to(q.dtype))
        dk += torch.einsum("bgrts,btgrk->bsgk", ds, qs)
    return torch.cat(dq, 1), dk.to(k.dtype), dv.to(v.dtype)


def _scores(q: Tensor, k: Tensor, mask: Tensor, scale: float, cap: float | None) -> tuple[Tensor, Tensor | float]:
    """Masked scores `[B, G, H / G, T, S]`, scale * q k^T or its soft cap, and the cap's slope at each."""
    compute = promote(q.dtype)
    scores = torch.einsum("btgrk,bsgk->bgrts", grouped(q.to(compute), k.shape[2]), k.to(compute)) * scale
    slope: Tensor | float = 1.0
    if cap is not None:
        bent = (scores / cap).tanh()
        scores, slope = cap * bent, 1 - bent.square()
    return scores.masked_fill(~mask[:, None, None], -torch.inf), slope
