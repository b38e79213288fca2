"""Rotary position embedding. Source: Su et al. 2021, arXiv:2104.09864, in the half-rotated layout of GPT-NeoX."""

import torch
from torch import Tensor

from .precision import promote


def rope(x: Tensor, positions: Tensor | None, *, theta: float, dims: int | None = None) -> Tensor:
    """Rotate the first `dims` of the last dimension of `x` (all of it by default) by angles that grow with position.

    x `[B, T, H, K]`; positions `[B, T]` int64, or None for 0..T-1. Dimension i of the first half is paired with
    dimension i of the second and turned by position * theta^(-2i / dims). Tables are made on the fly in
    `promote(x.dtype)`: there is no buffer to cast, move or shard. The result has x's dtype.
    """
    dims = x.shape[-1] if dims is None else dims
    compute = promote(x.dtype)
    if positions is None:
        positions = torch.arange(x.shape[1], device=x.device)
    frequency = 1.0 / theta ** (torch.arange(0, dims, 2, dtype=compute, device=x.device) / dims)  # [dims / 2]
    angle = positions[..., None, None].to(compute) * frequency  # [B, T, 1, dims / 2]
    cos, sin = angle.cos(), angle.sin()
    first, second = x[..., :dims].to(compute).chunk(2, dim=-1)
    turned = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x.dtype)
    return turned if dims == x.shape[-1] else torch.cat((turned, x[..., dims:]), dim=-1)
