"""Initialisation in place. Source for the state-space parameters: Gu & Dao 2023 (Mamba), arXiv:2312.00752.

Everything is written as operations on the tensor itself, so that sharded tensors (DTensor) are initialised where they
lie. Draws are made in `promote(dtype)` and then rounded. `generator=None` means torch's default one.
"""

import math

import torch
from torch import Generator, Tensor

from .precision import promote


@torch.no_grad()
def normal_(t: Tensor, std: float, generator: Generator | None = None) -> None:
    """Normal with mean 0 and standard deviation `std`."""
    t.normal_(0.0, std, generator=generator)


@torch.no_grad()
def ones_(t: Tensor) -> None:
    """All ones: norm weights and Mamba's skip D."""
    t.fill_(1.0)


@torch.no_grad()
def zeros_(t: Tensor) -> None:
    """All zeros: biases."""
    t.zero_()


@torch.no_grad()
def A_log_(t: Tensor) -> None:
    """Each row becomes log(1), ..., log(N): the real S4D initialisation, A = -exp(A_log) = -1, ..., -N."""
    t.copy_(torch.ones_like(t, dtype=promote(t.dtype)).cumsum(-1).log())


@torch.no_grad()
def A_log_uniform_(t: Tensor, low: float, high: float, generator: Generator | None = None) -> None:
    """Log of uniform in [low, high]: Mamba-2's A, a scalar for each head (Dao & Gu 2024, arXiv:2405.21060)."""
    t.copy_(torch.empty_like(t, dtype=promote(t.dtype)).uniform_(low, high, generator=generator).log())


@torch.no_grad()
def dt_bias_(
    t: Tensor, dt_min: float = 1e-3, dt_max: float = 1e-1, floor: float = 1e-4, generator: Generator | None = None
) -> None:
    """The softplus of the bias is log-uniform in [dt_min, dt_max], and at least `floor`."""
    low, high = math.log(dt_min), math.log(dt_max)
    dt = torch.empty_like(t, dtype=promote(t.dtype)).uniform_(low, high, generator=generator).exp().clamp(min=floor)
    t.copy_(dt + torch.log(-torch.expm1(-dt)))  # inverse of softplus


@torch.no_grad()
def dt_weight_(t: Tensor, dt_rank: int, generator: Generator | None = None) -> None:
    """Uniform within +-dt_rank^-1/2, which keeps the variance of dt before its bias."""
    bound = dt_rank**-0.5
    t.uniform_(-bound, bound, generator=generator)


@torch.no_grad()
def uniform_(t: Tensor, bound: float, generator: Generator | None = None) -> None:
    """Uniform in +-bound, as `nn.Conv1d` starts with bound = 1 / sqrt(fan in)."""
    t.uniform_(-bound, bound, generator=generator)
