"""The gated delta rule, token by token, from its paper (arXiv:2412.06464, equation 10), in plain torch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def gated_delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    b: Tensor,
    a: Tensor,
    A_log: Tensor,
    dt_bias: Tensor,
    positions: Tensor | None,
    state: Tensor,
    most: float,
) -> tuple[Tensor, Tensor]:
    """y `[B, T, H, V]` and the final state `[B, H, K, V]`.

    S[t] = alpha[t] S[t-1] (I - beta[t] k[t] k[t]^T) + beta[t] v[t] k[t]^T, transposed.
    """
    heads, groups, width = v.shape[2], q.shape[2], q.shape[3]
    q, k = (x / (x.square().sum(-1, keepdim=True) + 1e-6).sqrt() for x in (q, k))
    alpha, beta = torch.exp(-A_log.exp() * F.softplus(a + dt_bias)), most * torch.sigmoid(b)
    rows = []
    for one in range(len(q)):
        outs = []
        S = [state[one, h].T for h in range(heads)]
        for t in range(q.shape[1]):
            read = []
            for h in range(heads):
                key, query = k[one, t, h * groups // heads], q[one, t, h * groups // heads]
                if positions is not None and int(positions[one, t]) == 0:
                    S[h] = torch.zeros_like(S[h])
                erased = torch.eye(width, dtype=q.dtype) - beta[one, t, h] * torch.outer(key, key)
                S[h] = alpha[one, t, h] * S[h] @ erased + beta[one, t, h] * torch.outer(v[one, t, h], key)
                read.append(S[h] @ query * width**-0.5)
            outs.append(torch.stack(read))
        rows.append((torch.stack(outs), torch.stack([each.T for each in S])))
    return torch.stack([y for y, _ in rows]), torch.stack([S for _, S in rows])
