"""Heads with weights of their own: projections of each, and recurrences that see one head at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class HeadLinear(nn.Module):
    """A linear map for each head. Weight `[heads, d_out, d_in]`, bias `[heads, d_out]`."""

    bias: Tensor | None

    def __init__(self, heads: int, d_in: int, d_out: int, *, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(heads, d_out, d_in))
        self.register_parameter("bias", nn.Parameter(torch.empty(heads, d_out)) if bias else None)

    def forward(self, x: Tensor) -> Tensor:
        y = head_linear(x, self.weight)
        return y if self.bias is None else y + self.bias


def head_linear(x: Tensor, weight: Tensor) -> Tensor:
    """`x[..., h, :] @ weight[h].T` for every head: x `[B, T, heads, d_in]` to `[B, T, heads, d_out]`."""
    rows = x.flatten(0, 1).transpose(0, 1)  # [heads, B * T, d_in]
    return torch.unflatten(torch.bmm(rows, weight.mT).transpose(0, 1), 0, x.shape[:2])


def per_head(
    scan: Callable[..., Tensor], *operands: Tensor, positions: Tensor | None = None, state: Tensor | None = None
) -> Tensor:
    """A recurrence of each head by itself, the results side by side.

    Args:
        scan: takes one head's `operands` in their order, `positions` and `state`.
        operands: activations `[B, T, heads, ...]`, and weights, of fewer dimensions, that lead with the heads.
        state: `[B, heads, ...]`; `scan` writes its head's part in place.

    Returns:
        `[B, T, heads, ...]`.
    """
    heads = operands[0].shape[2]
    results = [
        scan(
            *(operand.select(2 if operand.dim() == operands[0].dim() else 0, head) for operand in operands),
            positions=positions,
            state=None if state is None else state[:, head],
        )
        for head in range(heads)
    ]
    return torch.stack(results, dim=2)
