"""Sums of powers, the kernel of a diagonal state space (Gu et al. 2022, arXiv:2206.11893, section 3.2).

    k[l] = 2 Re(sum_n c[n] exp(l z[n])),    l = 0 ... T-1,  Re z <= 0

Powers factor: with l = j W + r, exp(l z) = exp(j W z) exp(r z). So all T numbers are one product of a `[T / W, N]` and
a `[N, W]` matrix for each channel, and no table of T powers is ever made. The factors are computed in float64: of l z,
float32 has few digits behind the point where l is large.

Complex numbers cross the borders of operations as pairs of real ones, in a last axis of 2.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.library import custom_op
from torch.utils.flop_counter import register_flop_formula

from .namespace import NAMESPACE


def vandermonde(c: Tensor, z: Tensor, length: int) -> Tensor:
    """Return k `[..., D, length]` of c `[..., D, N, 2]` and z `[D, N, 2]`, differentiable in both."""
    k: Tensor = vandermonde_fwd(c, z, length)
    return k


def moments(x: Tensor, z: Tensor) -> Tensor:
    """The transpose of `vandermonde`: `sum_l x[l] exp(l z)` of x `[..., D, T]`, as `[..., D, N, 2]`."""
    length = x.shape[-1]
    coarse, fine = _powers(z, length, x.dtype)
    width = fine.shape[1]
    blocks = torch.unflatten(F.pad(x, (0, coarse.shape[1] * width - length)), -1, (-1, width))
    inner = torch.view_as_complex(torch.unflatten(blocks @ torch.view_as_real(fine).flatten(-2), -1, (-1, 2)))
    return torch.view_as_real((inner * coarse).sum(-2))


def block_width(length: int) -> int:
    """W: the power of two next to the square root of `length`."""
    return int(1 << ((length - 1).bit_length() // 2))


def _powers(z: Tensor, length: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """exp(j W z) `[D, T / W, N]` and exp(r z) `[D, W, N]`, complex numbers of `dtype`."""
    wide = torch.view_as_complex(z.double())[:, None]
    width = block_width(length)
    r = torch.arange(width, device=z.device)[:, None]
    j = torch.arange(-(-length // width), device=z.device)[:, None]
    return (wide * (j * width)).exp().to(dtype.to_complex()), (wide * r).exp().to(dtype.to_complex())


@custom_op(f"{NAMESPACE}::vandermonde_fwd", mutates_args=())
def vandermonde_fwd(c: Tensor, z: Tensor, length: int) -> Tensor:
    coarse, fine = _powers(z, length, c.dtype)
    left = torch.view_as_real(torch.view_as_complex(c)[..., None, :] * coarse).flatten(-2)  # [..., D, T / W, 2 N]
    right = torch.view_as_real(fine.conj_physical()).flatten(-2)  # the real part of a product: re re - im im
    k = 2 * (left @ right.mT).flatten(-2)[..., :length]
    return k.contiguous()


@custom_op(f"{NAMESPACE}::vandermonde_bwd", mutates_args=())
def vandermonde_bwd(grad: Tensor, c: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of c and z."""
    ordinal = torch.arange(grad.shape[-1], device=grad.device, dtype=grad.dtype)
    of_powers, of_products = moments(torch.stack([grad, grad * ordinal]), z).unbind(0)
    sign = grad.new_tensor([2.0, -2.0])
    turned = torch.view_as_real(torch.view_as_complex(c) * torch.view_as_complex(of_products))
    grad_z = (turned * sign).flatten(0, -4).sum(0) if c.dim() > 3 else turned * sign
    return of_powers * sign, grad_z


@vandermonde_fwd.register_fake
def _(c: Tensor, z: Tensor, length: int) -> Tensor:
    return c.new_empty(*c.shape[:-2], length)


@vandermonde_bwd.register_fake
def _(grad: Tensor, c: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    return c.new_empty(c.shape), z.new_empty(z.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
    return (*vandermonde_bwd(grad.contiguous(), *ctx.saved_tensors), None)


vandermonde_fwd.register_autograd(_backward, setup_context=_setup_context)


def product_flops(channels: int, length: int, n: int) -> int:
    """The matrix product of the two factors, a multiply-add being 2; `n` counts complex numbers."""
    width = block_width(length)
    return 2 * channels * -(-length // width) * width * 2 * n


def _size(shape: Any) -> int:
    return int(torch.Size(shape).numel())


_ops = getattr(torch.ops, NAMESPACE)


@register_flop_formula(_ops.vandermonde_fwd)
def _(c: Any, z: Any, length: int, *_: Any, **__: Any) -> int:
    return product_flops(_size(c[:-2]), length, c[-2])


@register_flop_formula(_ops.vandermonde_bwd)
def _(grad: Any, c: Any, *_: Any, **__: Any) -> int:
    return 2 * product_flops(_size(c[:-2]), grad[-1], c[-2])
