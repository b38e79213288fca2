"""How S4D begins (Gu et al. 2022, arXiv:2206.11893, section 4). In place, as `initialise.py`."""

import math

import torch
from torch import Generator, Tensor

from .precision import promote


@torch.no_grad()
def A_half_(t: Tensor) -> None:
    """-Re A = 1/2, as its logarithm."""
    t.fill_(math.log(0.5))


@torch.no_grad()
def A_linear_(t: Tensor) -> None:
    """S4D-Lin: Im A = pi n, n = 0 ... N/2 - 1 in each row."""
    t.copy_(math.pi * (torch.ones_like(t, dtype=promote(t.dtype)).cumsum(-1) - 1))


@torch.no_grad()
def A_inverse_(t: Tensor) -> None:
    """S4D-Inv: Im A = N / pi (N / (2 n + 1) - 1), n = 0 ... N/2 - 1 in each row."""
    N = 2 * t.shape[-1]
    odd = 2 * torch.ones_like(t, dtype=promote(t.dtype)).cumsum(-1) - 1
    t.copy_(N / math.pi * (N / odd - 1))


@torch.no_grad()
def log_dt_(t: Tensor, dt_min: float, dt_max: float, generator: Generator | None = None) -> None:
    """dt is log-uniform in [dt_min, dt_max]."""
    t.copy_(
        torch.empty_like(t, dtype=promote(t.dtype)).uniform_(math.log(dt_min), math.log(dt_max), generator=generator)
    )
