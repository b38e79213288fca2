"""Discretisation of a diagonal state space: from A and dt to what one token does to the state.

    zoh       Ā = exp(dt A)                       B̄ = (exp(dt A) - 1) / A
    bilinear  Ā = (1 + dt A / 2) / (1 - dt A / 2)  B̄ = dt / (1 - dt A / 2)

Sources: Gu et al. 2022, arXiv:2206.11893, section 2; B = 1. Shapes: A, C, z = log Ā, c = C B̄ `[D, N]`, complex;
dt `[D]`. Gradients of complex numbers are dL/dRe + i dL/dIm, so that behind a function f they are times conj(f').
"""

import torch
from torch import Tensor


def discretised(A: Tensor, dt: Tensor, C: Tensor, rule: str) -> tuple[Tensor, Tensor]:
    """log Ā and C B̄."""
    dt = dt[:, None]
    if rule == "zoh":
        z = dt * A
        return z, C * (torch.expm1(z) / A)
    half = dt * A / 2
    return ((1 + half) / (1 - half)).log(), C * (dt / (1 - half))


def discretised_backward(
    grad_z: Tensor, grad_c: Tensor, A: Tensor, dt: Tensor, C: Tensor, rule: str
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of A, dt and C from those of log Ā and C B̄."""
    dt = dt[:, None]
    grad_B = grad_c * C.conj_physical()
    if rule == "zoh":
        z = dt * A
        B = torch.expm1(z) / A
        grad_z = grad_z + grad_B * (z.exp() / A).conj_physical()
        grad_A = grad_z * dt - grad_B * (B / A).conj_physical()
        grad_dt = grad_z * A.conj_physical()
    else:
        half = dt * A / 2
        B = dt / (1 - half)
        grad_half = grad_z * (2 / (1 - half * half)).conj_physical() + grad_B * (B / (1 - half)).conj_physical()
        grad_A = grad_half * dt / 2
        grad_dt = grad_half * A.conj_physical() / 2 + grad_B * (B / dt).conj_physical()
    return grad_A, grad_dt.real.sum(1), grad_c * B.conj_physical()
