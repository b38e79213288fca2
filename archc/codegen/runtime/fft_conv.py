"""Causal convolution with kernels as long as the sequence, by FFT: `y[t] = sum_{s <= t} k[t - s] x[s]`, per channel.

Packed documents are convolved each by itself: those of about one length together, padded to a power of two. Which these
are is known on the device alone, so a packed batch waits for it once.

Shapes: x, y `[B, T, D]`; kernel `[D, T]` in the dtype that is computed in; positions `[B, T]`, whose zeros begin
documents, or None for one document.
"""

from collections.abc import Iterator

import torch
from torch import Tensor


def fft_conv(x: Tensor, kernel: Tensor, positions: Tensor | None) -> Tensor:
    """y, in the dtype of the kernel."""
    y = x.new_empty(x.shape, dtype=kernel.dtype)
    for tokens in _documents(x, positions):
        n = 2 * tokens.length
        spectrum = torch.fft.rfft(tokens.read(x, kernel.dtype), n, dim=1) * _spectrum(kernel, tokens.length)
        tokens.write(y, torch.fft.irfft(spectrum, n, dim=1))
    return y


def fft_conv_backward(grad: Tensor, x: Tensor, kernel: Tensor, positions: Tensor | None) -> tuple[Tensor, Tensor]:
    """The gradients of x, in the dtype of the kernel, and of the kernel."""
    grad_x, grad_kernel = x.new_empty(x.shape, dtype=kernel.dtype), torch.zeros_like(kernel)
    for tokens in _documents(x, positions):
        n, seen = 2 * tokens.length, min(tokens.length, kernel.shape[1])
        spectrum = torch.fft.rfft(tokens.read(grad, kernel.dtype), n, dim=1)
        of_x = torch.fft.rfft(tokens.read(x, kernel.dtype), n, dim=1).conj_physical()
        of_kernel = _spectrum(kernel, tokens.length).conj_physical()
        tokens.write(grad_x, torch.fft.irfft(spectrum * of_kernel, n, dim=1))
        grad_kernel[:, :seen] += torch.fft.irfft((spectrum * of_x).sum(0), n, dim=0)[:seen].T
    return grad_x, grad_kernel


def padded(length: int) -> int:
    """The least power of two that holds `length`; the transforms are twice as long, so that nothing wraps around."""
    return int(1 << (length - 1).bit_length())


def transform_flops(length: int) -> int:
    """One transform of real numbers, 5/2 n log2 n operations: half of a complex one's (Cooley & Tukey 1965)."""
    n = 2 * padded(length)
    return 5 * n * (n.bit_length() - 1) // 2


def forward_flops(B: int, T: int, D: int) -> int:
    """The transforms of x and of the kernel, and back. Packed sequences are counted as one document."""
    return (2 * B + 1) * D * transform_flops(T)


def backward_flops(B: int, T: int, D: int) -> int:
    """The transforms of the gradient, x and the kernel, and back to both gradients."""
    return (3 * B + 2) * D * transform_flops(T)


class _Packed:
    """Documents of at most `length` tokens each: where they lie among all tokens, `[n, length]`, and which are real."""

    def __init__(self, index: Tensor, real: Tensor) -> None:
        self.length = index.shape[1]
        self.index = index
        self.real = real

    def read(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """`[n, length, D]`, zeros behind the ends."""
        rows = x.flatten(0, 1)[self.index.clamp(max=x.shape[0] * x.shape[1] - 1)].to(dtype)
        return rows.masked_fill(~self.real[..., None], 0.0)

    def write(self, y: Tensor, rows: Tensor) -> None:
        y.view(-1, y.shape[-1])[self.index[self.real]] = rows[:, : self.length][self.real]


class _Whole:
    """Every sequence as one document."""

    def __init__(self, tokens: int) -> None:
        self.length = padded(tokens)

    def read(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        return x.to(dtype)

    def write(self, y: Tensor, rows: Tensor) -> None:
        y.copy_(rows[:, : y.shape[1]])


def _documents(x: Tensor, positions: Tensor | None) -> Iterator[_Packed | _Whole]:
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
        yield _Packed(starts[here, None] + offsets, offsets < lengths[here, None])


def _spectrum(kernel: Tensor, length: int) -> Tensor:
    """`[length + 1, D]` of the first `length` numbers of each kernel."""
    spectrum: Tensor = torch.fft.rfft(kernel[:, :length].T, 2 * length, dim=0)
    return spectrum
