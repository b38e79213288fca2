"""S4D, a diagonal state space that does not change with time (Gu et al. 2022, arXiv:2206.11893).

    A = -exp(A_log) + i A_imag,  dt = exp(log_dt)
    s[t] = Ā s[t-1] + B̄ x[t],  y[t] = 2 Re(C · s[t]) + D x[t]          Ā, B̄ from A and dt, B = 1

A channel has N / 2 complex states, one of each conjugate pair; the factor 2 stands for the others. B̄ is taken into C,
so that the state which is kept is `s / B̄`. A token at position 0 starts from s = 0.

What runs when: a sequence is a convolution with `k[l] = 2 Re(C B̄ Ā^l)`, by FFT (`fft_conv.py`), to which a state that
came before adds its decay; packed documents are convolved each by itself. A single token of decoding is the
recurrence, in place. Plain torch, on every device, in `promote(x.dtype)`.
"""

from typing import Any, Literal

import torch
from torch import Tensor
from torch.library import custom_op
from torch.utils.flop_counter import register_flop_formula

from .fft_conv import fft_conv
from .namespace import NAMESPACE
from .precision import promote
from .vandermonde import moments, vandermonde

Rule = Literal["zoh", "bilinear"]


def s4d(
    x: Tensor,
    A_log: Tensor,
    A_imag: Tensor,
    C: Tensor,
    D: Tensor,
    log_dt: Tensor,
    *,
    discretisation: Rule = "zoh",
    positions: Tensor | None = None,
    state: Tensor | None = None,
) -> Tensor:
    """Return y `[B, T, D]`, differentiable in everything but `state`, which the final state replaces.

    Args:
        x: inputs `[B, T, D]`.
        A_log: `[D, N / 2]`.
        A_imag: `[D, N / 2]`.
        C: `[D, N / 2, 2]`, real and imaginary parts.
        D: skip weights `[D]`.
        log_dt: `[D]`.
        discretisation: how Ā and B̄ follow from A and dt.
        positions: each token's index in its document `[B, T]`; None for one document.
        state: `[B, D, N / 2, 2]`, written in place.
    """
    dtype = promote(x.dtype)
    z, c = discretised(A_log.to(dtype), A_imag.to(dtype), C.to(dtype), log_dt.to(dtype), discretisation)
    y: Tensor
    if state is not None and x.shape[1] == 1 and not torch.is_grad_enabled():
        y = s4d_step(x, z, c, D, positions, state)
        return y
    y = fft_conv(x, vandermonde(c, z, x.shape[1]), positions) + D.to(dtype) * x.to(dtype)
    if state is not None:
        before = state.to(dtype, copy=True)  # backward reads it, and it is written over
        y = y + _remembered(c, z, before, positions, x.shape[1])
        with torch.no_grad():
            state.copy_(_final_state(x.to(dtype), z, before, positions))
    return y.to(x.dtype)


def discretised(A_log: Tensor, A_imag: Tensor, C: Tensor, log_dt: Tensor, rule: Rule) -> tuple[Tensor, Tensor]:
    """log Ā and C B̄, `[D, N / 2, 2]` each."""
    A = torch.complex(-A_log.exp(), A_imag)
    dt = log_dt.exp()[:, None]
    if rule == "zoh":
        z = dt * A
        B = torch.expm1(z) / A
    else:
        half = dt * A / 2
        z = ((1 + half) / (1 - half)).log()
        B = dt / (1 - half)
    return torch.view_as_real(z), torch.view_as_real(torch.view_as_complex(C) * B)


def _remembered(c: Tensor, z: Tensor, state: Tensor, positions: Tensor | None, length: int) -> Tensor:
    """What a state from before adds to each y `[B, T, D]`, up to the first token at position 0."""
    a, s = torch.view_as_complex(z).exp(), torch.view_as_complex(state)
    coefficients = torch.view_as_real(torch.view_as_complex(c) * a * s)
    y = vandermonde(coefficients, z, length).mT
    return y if positions is None else y.masked_fill(((positions == 0).cumsum(1) > 0)[..., None], 0.0)


def _final_state(x: Tensor, z: Tensor, state: Tensor, positions: Tensor | None) -> Tensor:
    """The state behind the last token `[B, D, N / 2, 2]`."""
    decay = (torch.view_as_complex(z.double()) * x.shape[1]).exp()
    old = torch.view_as_real(torch.view_as_complex(state) * decay.to(x.dtype.to_complex()))
    if positions is not None:
        later = (positions == 0).flip(1).cumsum(1).flip(1)  # documents that begin here or later
        beginning = later - (positions == 0).long()
        x = x.masked_fill((beginning > 0)[..., None], 0.0)
        old = old.masked_fill((later[:, 0] > 0)[:, None, None, None], 0.0)
    return old + moments(x.flip(1).mT, z)


@custom_op(f"{NAMESPACE}::s4d_step", mutates_args={"state"})
def s4d_step(x: Tensor, z: Tensor, c: Tensor, D: Tensor, positions: Tensor | None, state: Tensor) -> Tensor:
    """Advance `state` by one token in place; return y `[B, 1, D]`."""
    wide = x[:, 0].to(c.dtype)
    s = torch.view_as_complex(state.to(c.dtype)) * torch.view_as_complex(z).exp()
    if positions is not None:
        s = s.masked_fill((positions[:, 0] == 0)[:, None, None], 0.0)
    s = s + wide[..., None]
    y = 2 * (torch.view_as_complex(c) * s).real.sum(-1) + D.to(c.dtype) * wide
    state.copy_(torch.view_as_real(s))
    return y.to(x.dtype)[:, None]


@s4d_step.register_fake
def _(x: Tensor, *_: Any) -> Tensor:
    return x.new_empty(x.shape)


def step_flops(B: int, D: int, n: int) -> int:
    """One token of the recurrence: 11 operations for each complex state, 3 for each channel."""
    return B * D * (11 * n + 3)


_ops = getattr(torch.ops, NAMESPACE)


@register_flop_formula(_ops.s4d_step)
def _(x: Any, z: Any, *_: Any, **__: Any) -> int:
    return step_flops(x[0], x[2], z[1])
