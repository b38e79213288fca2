"""Sums of powers, the kernel of a diagonal state space (Gu et al. 2022, arXiv:2206.11893, section 3.2).

    k[l] = 2 Re(sum_n c[n] exp(l z[n])),    l = 0 ... T-1,  Re z <= 0

Powers factor: with l = j W + r, exp(l z) = exp(j W z) exp(r z). So all T numbers are one product of a `[T / W, N]` and
a `[N, W]` matrix for each channel, and no table of T powers is ever made. The factors are computed in float64: of l z,
float32 has few digits behind the point where l is large.

Shapes: c `[..., D, N]` and z `[D, N]`, complex; k `[..., D, T]`. Conjugates are made, not noted: below torch.compile
nothing would act on the note of a lazy one.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def vandermonde(c: Tensor, z: Tensor, length: int) -> Tensor:
    """k for the first `length` l."""
    coarse, fine = _powers(z, length)
    left = torch.view_as_real(c[..., None, :] * coarse).flatten(-2)  # [..., D, T / W, 2 N]
    right = torch.view_as_real(fine.conj_physical()).flatten(-2)  # the real part of a product is re re - im im
    return 2 * (left @ right.mT).flatten(-2)[..., :length]


def vandermonde_backward(grad: Tensor, c: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of c and of z, this one still `[..., D, N]`."""
    ordinal = torch.arange(grad.shape[-1], device=grad.device, dtype=grad.dtype)
    of_powers, of_products = moments(torch.stack([grad, grad * ordinal]), z).unbind(0)
    return 2 * of_powers.conj_physical(), 2 * (c * of_products).conj_physical()


def moments(x: Tensor, z: Tensor) -> Tensor:
    """`sum_l x[l] exp(l z)` of x `[..., D, T]`, the transpose of `vandermonde`."""
    coarse, fine = _powers(z, x.shape[-1])
    width = fine.shape[1]
    blocks = torch.unflatten(F.pad(x, (0, coarse.shape[1] * width - x.shape[-1])), -1, (-1, width))
    inner = torch.view_as_complex(torch.unflatten(blocks @ torch.view_as_real(fine).flatten(-2), -1, (-1, 2)))
    return (inner * coarse).sum(-2)


def block_width(length: int) -> int:
    """W: a power of two near the square root of `length`."""
    return int(1 << ((length - 1).bit_length() // 2))


def product_flops(channels: int, length: int, n: int) -> int:
    """The matrix product of the two factors, a multiply-add being 2; `n` counts complex numbers."""
    width = block_width(length)
    return 2 * channels * -(-length // width) * width * 2 * n


def _powers(z: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """exp(j W z) `[D, T / W, N]` and exp(r z) `[D, W, N]`."""
    width = block_width(length)
    r = torch.arange(width, device=z.device)[:, None]
    j = torch.arange(-(-length // width), device=z.device)[:, None]
    wide = z.to(torch.complex128)[:, None]
    return (wide * (j * width)).exp().to(z.dtype), (wide * r).exp().to(z.dtype)
