"""The operations as their papers write them, step by step in plain differentiable torch: the oracle of every test.

Nothing here is fast. All computation is in `promote(dtype, float32)`; see each operation's own file for the shapes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def selective_scan(
    x: Tensor,
    dt: Tensor,
    A_log: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    *,
    dt_softplus: bool = True,
    positions: Tensor | None = None,
    initial: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Mamba's recurrence (Gu & Dao 2023, arXiv:2312.00752): y `[B, T, D]` and the final state `[B, D, N]`."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    u, dt, B, C = x.to(dtype), dt.to(dtype), B.to(dtype), C.to(dtype)
    if dt_bias is not None:
        dt = dt + dt_bias.to(dtype)
    if dt_softplus:
        dt = F.softplus(dt)
    A = -torch.exp(A_log.to(dtype))
    h = u.new_zeros(u.shape[0], *A.shape) if initial is None else initial.to(dtype)
    ys = []
    for t in range(u.shape[1]):
        if positions is not None:
            h = torch.where((positions[:, t] == 0)[:, None, None], 0.0, h)
        h = torch.exp(dt[:, t, :, None] * A) * h + (dt[:, t] * u[:, t])[:, :, None] * B[:, t, None, :]
        ys.append((h * C[:, t, None, :]).sum(-1))
    y = torch.stack(ys, 1)
    if D is not None:
        y = y + D.to(dtype) * u
    if z is not None:
        y = y * F.silu(z.to(dtype))
    return y.to(x.dtype), h


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    silu: bool = True,
    positions: Tensor | None = None,
    initial: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Depthwise convolution over the last K tokens: y `[B, T, C]` and the last K-1 inputs `[B, K-1, C]`."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    width = weight.shape[-1]
    past = x.new_zeros(x.shape[0], width - 1, x.shape[2]) if initial is None else initial.to(x.dtype)
    inputs = torch.cat([past, x], 1)
    ys = []
    for t in range(x.shape[1]):
        y = torch.zeros_like(x[:, t], dtype=dtype)
        for k in range(width):
            tap = weight[:, 0, k].to(dtype) * inputs[:, t + k].to(dtype)
            if positions is not None:
                tap = torch.where((positions[:, t] >= width - 1 - k)[:, None], tap, 0.0)
            y = y + tap
        ys.append(y)
    y = torch.stack(ys, 1)
    if bias is not None:
        y = y + bias.to(dtype)
    if silu:
        y = F.silu(y)
    return y.to(x.dtype), inputs[:, x.shape[1] :]


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Root mean square layer normalisation (Zhang & Sennrich 2019, arXiv:1910.07467)."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    wide = x.to(dtype)
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps) * weight.to(dtype)).to(weight.dtype)


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The residual stream with `x` added, normalised; and that stream itself."""
    dtype = torch.promote_types(torch.promote_types(x.dtype, residual.dtype), torch.float32)
    residual = (residual.to(dtype) + x.to(dtype)).to(residual.dtype)
    return rms_norm(residual, weight, eps), residual


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """The gated linear unit with SiLU (Shazeer 2020, arXiv:2002.05202), after its two projections."""
    dtype = torch.promote_types(gate.dtype, torch.float32)
    return (F.silu(gate.to(dtype)) * up.to(dtype)).to(gate.dtype)
