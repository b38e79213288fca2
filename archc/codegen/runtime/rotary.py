"""Rotary position embedding. Source: Su et al. 2021, arXiv:2104.09864, in the half-rotated layout of GPT-NeoX."""

from typing import Any

import torch
from torch import Tensor

from .precision import promote


def rope(x: Tensor, positions: Tensor | None, *, theta: float, dims: int | None = None) -> Tensor:
    """Rotate the first `dims` of the last dimension of `x` (all of it by default) by angles that grow with position.

    x `[B, T, H, K]`; positions `[B, T]` int64, or None for 0..T-1. Dimension i of the first half is paired with
    dimension i of the second and turned by position * theta^(-2i / dims). Tables are made on the fly in
    `promote(x.dtype)`: there is no buffer to cast, move or shard. The result has x's dtype.
    """
    out: Tensor = Rotation.apply(x, positions, theta, x.shape[-1] if dims is None else dims)  # type: ignore[no-untyped-call]
    return out


class Rotation(torch.autograd.Function):
    """A rotation and, backward, the opposite one: no activation is kept, nor the tables."""

    @staticmethod
    def forward(x: Tensor, positions: Tensor | None, theta: float, dims: int) -> Tensor:
        return _turn(x, positions, theta, dims, 1.0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, positions, ctx.theta, ctx.dims = inputs
        ctx.save_for_backward(positions)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (positions,) = ctx.saved_tensors
        return _turn(grad, positions, ctx.theta, ctx.dims, -1.0), None, None, None


def _turn(x: Tensor, positions: Tensor | None, theta: float, dims: int, direction: float) -> Tensor:
    compute = promote(x.dtype)
    if positions is None:
        positions = torch.arange(x.shape[1], device=x.device)
    frequency = 1.0 / theta ** (torch.arange(0, dims, 2, dtype=compute, device=x.device) / dims)  # [dims / 2]
    angle = positions[..., None, None].to(compute) * frequency  # [B, T, 1, dims / 2]
    cos, sin = angle.cos(), direction * angle.sin()
    first, second = x[..., :dims].to(compute).chunk(2, dim=-1)
    turned = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x.dtype)
    return turned if dims == x.shape[-1] else torch.cat((turned, x[..., dims:]), dim=-1)
