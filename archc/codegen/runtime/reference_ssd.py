"""Mamba-2's operations as their paper writes them, step by step in plain differentiable torch: the oracle of tests.

Nothing here is fast. All computation is in `promote(dtype, float32)`; see each operation's own file for the shapes.
Source: Dao & Gu 2024, arXiv:2405.21060.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def ssd(
    x: Tensor,
    dt: Tensor,
    A_log: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    dt_bias: Tensor,
    *,
    dt_limit: tuple[float, float | None] = (0.0, None),
    positions: Tensor | None = None,
    initial: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The recurrence: y `[B, T, H, P]` and the final state `[B, H, P, N]`."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    step = F.softplus(dt.to(dtype) + dt_bias.to(dtype)).clamp(*dt_limit)
    y, h = recurrence(
        x.to(dtype), step, -A_log.to(dtype).exp(), B.to(dtype), C.to(dtype), D.to(dtype), positions, initial
    )
    return y.to(x.dtype), h


def recurrence(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    positions: Tensor | None = None,
    initial: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The same from step sizes dt > 0 and A < 0, one token after the other."""
    batch, length, heads, width = x.shape
    B, C = (v.repeat_interleave(heads // v.shape[2], 2)[:, :, :, None] for v in (B, C))  # [B, T, H, 1, N]
    h = x.new_zeros(batch, heads, width, B.shape[-1]) if initial is None else initial.to(x.dtype)
    ys = []
    for t in range(length):
        if positions is not None:
            h = torch.where((positions[:, t] == 0)[:, None, None, None], 0.0, h)
        decay = torch.exp(dt[:, t] * A)[..., None, None]
        u = x[:, t] * dt[:, t, :, None]
        h = decay * h + u[..., None] * B[:, t]
        ys.append((h * C[:, t]).sum(-1) + D.view(heads, -1) * x[:, t])
    return torch.stack(ys, 1), h


def gated_rms_norm(
    y: Tensor, z: Tensor, weight: Tensor, eps: float, *, groups: int = 1, norm_before_gate: bool = False
) -> Tensor:
    """RMSNorm in groups of channels, of y or of y times its gate."""
    dtype = torch.promote_types(y.dtype, torch.float32)
    y, gate = y.to(dtype), F.silu(z.to(dtype))
    normed = []
    for group in (y if norm_before_gate else y * gate).chunk(groups, -1):
        normed.append(group / (group.square().mean(-1, keepdim=True) + eps).sqrt())
    result = torch.cat(normed, -1) * weight.to(dtype)
    return (result * gate if norm_before_gate else result).to(weight.dtype)
