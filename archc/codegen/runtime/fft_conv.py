"""Causal convolution with kernels as long as the sequence, by FFT: `y[t] = sum_{s <= t} k[t - s] x[s]`, per channel.

Packed documents are convolved each by itself: those of about one length together, padded to a power of two. Which these
are is known on the device alone, so a packed batch waits for it once. Sums are in `promote(x.dtype)`.

Conjugates are made, not noted: below torch.compile nothing would act on the note of a lazy one.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op
from torch.utils.flop_counter import register_flop_formula

from .namespace import NAMESPACE
from .precision import promote


def fft_conv(x: Tensor, kernel: Tensor, positions: Tensor | None = None) -> Tensor:
    """Return y `[B, T, D]` in `promote(x.dtype)`, differentiable in x and kernel.

    Args:
        x: `[B, T, D]`.
        kernel: `[D, T]` in `promote(x.dtype)`, its first number for the present.
        positions: each token's index in its document `[B, T]`; None for one document.
    """
    y: Tensor = fft_conv_fwd(x, kernel, positions)
    return y


@custom_op(f"{NAMESPACE}::fft_conv_fwd", mutates_args=())
def fft_conv_fwd(x: Tensor, kernel: Tensor, positions: Tensor | None) -> Tensor:
    y = x.new_empty(x.shape, dtype=kernel.dtype)
    for tokens in _documents(x, positions):
        n = 2 * tokens.length
        spectrum = torch.fft.rfft(tokens.read(x), n, dim=1) * _spectrum(kernel, tokens.length)
        tokens.write(y, torch.fft.irfft(spectrum, n, dim=1))
    return y


@custom_op(f"{NAMESPACE}::fft_conv_bwd", mutates_args=())
def fft_conv_bwd(grad: Tensor, x: Tensor, kernel: Tensor, positions: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the gradients of x and kernel."""
    grad_x, grad_kernel = x.new_empty(x.shape), torch.zeros_like(kernel)
    for tokens in _documents(x, positions):
        n, seen = 2 * tokens.length, min(tokens.length, kernel.shape[1])
        spectrum = torch.fft.rfft(tokens.read(grad), n, dim=1)
        of_x = torch.fft.rfft(tokens.read(x), n, dim=1)
        tokens.write(grad_x, torch.fft.irfft(spectrum * _spectrum(kernel, tokens.length).conj_physical(), n, dim=1))
        grad_kernel[:, :seen] += torch.fft.irfft((spectrum * of_x.conj_physical()).sum(0), n, dim=0)[:seen].T
    return grad_x, grad_kernel


def _spectrum(kernel: Tensor, length: int) -> Tensor:
    spectrum: Tensor = torch.fft.rfft(kernel[:, :length].T, 2 * length, dim=0)
    return spectrum


class _Tokens:
    """Documents of at most `length` tokens each: where they lie among all tokens, `[n, length]`, and which are real."""

    def __init__(self, index: Tensor, real: Tensor) -> None:
        self.length = index.shape[1]
        self.index = index
        self.real = real

    def read(self, x: Tensor) -> Tensor:
        """`[n, length, D]` in at least float32, zeros behind the ends."""
        rows = x.flatten(0, 1)[self.index.clamp(max=x.shape[0] * x.shape[1] - 1)].to(promote(x.dtype))
        return rows.masked_fill(~self.real[..., None], 0.0)

    def write(self, y: Tensor, rows: Tensor) -> None:
        y.view(-1, y.shape[-1])[self.index[self.real]] = rows[:, : self.length][self.real].to(y.dtype)


class _Whole:
    """Every sequence as one document."""

    def __init__(self, tokens: int) -> None:
        self.length = padded(tokens)

    def read(self, x: Tensor) -> Tensor:
        return x.to(promote(x.dtype))

    def write(self, y: Tensor, rows: Tensor) -> None:
        y.copy_(rows[:, : y.shape[1]])


def _documents(x: Tensor, positions: Tensor | None) -> Iterator[_Tokens | _Whole]:
    """All documents, in groups of one padded length."""
    if positions is None:
        yield _Whole(x.shape[1])
        return
    first = positions == 0
    first = torch.cat([torch.ones_like(first[:, :1]), first[:, 1:]], 1).flatten()
    starts = first.nonzero()[:, 0]
    lengths = torch.diff(starts, append=starts.new_tensor([first.numel()]))
    host = [padded(length) for length in lengths.tolist()]
    for length in sorted(set(host)):
        here = torch.tensor([i for i, other in enumerate(host) if other == length], device=x.device)
        offsets = torch.arange(length, device=x.device)
        yield _Tokens(starts[here, None] + offsets, offsets < lengths[here, None])


def padded(length: int) -> int:
    """The least power of two that holds `length`; the transforms are twice as long, so that nothing wraps around."""
    return int(1 << (length - 1).bit_length())


@fft_conv_fwd.register_fake
def _(x: Tensor, kernel: Tensor, positions: Tensor | None) -> Tensor:
    return x.new_empty(x.shape, dtype=kernel.dtype)


@fft_conv_bwd.register_fake
def _(grad: Tensor, x: Tensor, kernel: Tensor, positions: Tensor | None) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), kernel.new_empty(kernel.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
    return (*fft_conv_bwd(grad, *ctx.saved_tensors), None)


fft_conv_fwd.register_autograd(_backward, setup_context=_setup_context)


def transform_flops(length: int) -> int:
    """One transform of real numbers, 5/2 n log2 n operations: half of a complex one's (Cooley & Tukey 1965)."""
    n = 2 * padded(length)
    return 5 * n * (n.bit_length() - 1) // 2


_ops = getattr(torch.ops, NAMESPACE)


@register_flop_formula(_ops.fft_conv_fwd)
def _(x: Any, *_: Any, **__: Any) -> int:
    """Of x and of the kernel, and back; packed sequences are counted as one document."""
    return int((2 * x[0] + 1) * x[2]) * transform_flops(x[1])


@register_flop_formula(_ops.fft_conv_bwd)
def _(grad: Any, x: Any, *_: Any, **__: Any) -> int:
    """Of both gradients' factors again, and back."""
    return int((3 * x[0] + 2) * x[2]) * transform_flops(x[1])
