"""S4D's recurrence as its paper writes it, step by step in plain differentiable torch: the oracle of tests.

Source: Gu et al. 2022, arXiv:2206.11893, equations (2) and (3); the shapes are those of `s4d.py`.
"""

import torch
from torch import Tensor


def s4d(
    x: Tensor,
    A_log: Tensor,
    A_imag: Tensor,
    C: Tensor,
    D: Tensor,
    log_dt: Tensor,
    *,
    discretisation: str = "zoh",
    positions: Tensor | None = None,
    initial: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """y `[B, T, D]` and the final state `[B, D, N / 2, 2]`, of which the input is a part as it stands."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    wide, C = x.to(dtype), torch.view_as_complex(C.to(dtype))
    A = torch.complex(-A_log.to(dtype).exp(), A_imag.to(dtype))
    dt = log_dt.to(dtype).exp()[:, None]
    if discretisation == "zoh":
        a = (dt * A).exp()
        b = (a - 1) / A
    else:
        a = (1 + dt / 2 * A) / (1 - dt / 2 * A)
        b = dt / (1 - dt / 2 * A)
    s = (
        torch.zeros(len(x), *A.shape, dtype=A.dtype)
        if initial is None
        else torch.view_as_complex(initial.to(dtype)) * b
    )
    ys = []
    for t in range(x.shape[1]):
        if positions is not None:
            s = torch.where((positions[:, t] == 0)[:, None, None], 0.0, s)
        s = a * s + b * wide[:, t, :, None]
        ys.append(2 * (C * s).real.sum(-1) + D.to(dtype) * wide[:, t])
    return torch.stack(ys, 1).to(x.dtype), torch.view_as_real(s / b)
