"""S4D, a diagonal state space that does not change with time (Gu et al. 2022, arXiv:2206.11893).

    A = -exp(A_log) + i A_imag,  dt = exp(log_dt)
    s[t] = Ā s[t-1] + B̄ x[t],  y[t] = 2 Re(C · s[t]) + D x[t]          Ā, B̄ from A and dt, B = 1

A channel has N / 2 complex states, one of each conjugate pair; the factor 2 stands for the others. B̄ is taken into C,
so that the state which is kept is `s / B̄`. A token at position 0 starts from s = 0.

What runs when: a sequence is a convolution with `k[l] = 2 Re(C B̄ Ā^l)`, by FFT (`fft_conv.py`), to which a state that
came before adds its decay; packed documents are convolved each by itself. A single token of decoding is the recurrence,
in place. Plain torch, on every device, in `promote(x.dtype)`; complex numbers stay inside the operations.
"""

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.library import custom_op
from torch.utils.flop_counter import register_flop_formula

from . import fft_conv
from .discretise import discretised, discretised_backward
from .namespace import NAMESPACE
from .precision import promote
from .recompute import keep_results
from .vandermonde import moments, product_flops, vandermonde, vandermonde_backward


def s4d(
    x: Tensor,
    A_log: Tensor,
    A_imag: Tensor,
    C: Tensor,
    D: Tensor,
    log_dt: Tensor,
    *,
    discretisation: Literal["zoh", "bilinear"] = "zoh",
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
    y: Tensor
    weights = (A_log, A_imag, C, D, log_dt)
    if state is not None and x.shape[1] == 1 and not torch.is_grad_enabled():
        y = s4d_step(x, *weights, positions, state, discretisation)
        return y
    before = None if state is None else state.clone()  # backward reads it, and it is written over
    y, _, final = s4d_fwd(x, *weights, positions, before, discretisation)
    if state is not None:
        state.copy_(final)
    return y


class _System(NamedTuple):
    """The weights as complex numbers, and what discretisation makes of them: `[D, N / 2]` each, dt `[D]`."""

    A: Tensor
    dt: Tensor
    C: Tensor
    z: Tensor
    c: Tensor


def _system(A_log: Tensor, A_imag: Tensor, C: Tensor, log_dt: Tensor, rule: str, dtype: torch.dtype) -> _System:
    A, dt = torch.complex(-A_log.to(dtype).exp(), A_imag.to(dtype)), log_dt.to(dtype).exp()
    C = torch.view_as_complex(C.to(dtype))
    return _System(A, dt, C, *discretised(A, dt, C, rule))


@custom_op(f"{NAMESPACE}::s4d_fwd", mutates_args=())
def s4d_fwd(
    x: Tensor,
    A_log: Tensor,
    A_imag: Tensor,
    C: Tensor,
    D: Tensor,
    log_dt: Tensor,
    positions: Tensor | None,
    initial: Tensor | None,
    rule: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return y, the kernel `[D, T]` and, if there is an initial one, the final state; else an empty tensor."""
    dtype, length = promote(x.dtype), x.shape[1]
    system = _system(A_log, A_imag, C, log_dt, rule, dtype)
    kernel = vandermonde(system.c, system.z, length).contiguous()
    y = fft_conv.fft_conv(x, kernel, positions).addcmul_(D.to(dtype), x.to(dtype))
    final = x.new_empty(0, dtype=dtype)
    if initial is not None:
        before = torch.view_as_complex(initial.to(dtype))
        y += _until_reset(vandermonde(_remembered(system, before), system.z, length).mT, positions)
        final = torch.view_as_real(_final_state(x.to(dtype), system.z, before, positions))
    return y.to(x.dtype), kernel, final


@custom_op(f"{NAMESPACE}::s4d_bwd", mutates_args=())
def s4d_bwd(
    grad_y: Tensor,
    kernel: Tensor,
    x: Tensor,
    A_log: Tensor,
    A_imag: Tensor,
    C: Tensor,
    D: Tensor,
    log_dt: Tensor,
    positions: Tensor | None,
    initial: Tensor | None,
    rule: str,
) -> list[Tensor]:
    """Return the gradients of x, A_log, A_imag, C, D and log_dt."""
    dtype = kernel.dtype
    system = _system(A_log, A_imag, C, log_dt, rule, dtype)
    grad = grad_y.to(dtype)
    grad_x, grad_kernel = fft_conv.fft_conv_backward(grad, x, kernel, positions)
    grad_c, grad_z = vandermonde_backward(grad_kernel, system.c, system.z)
    if initial is not None:
        before = torch.view_as_complex(initial.to(dtype))
        read = _until_reset(grad, positions).mT.contiguous()
        grad_q, of_powers = vandermonde_backward(read, _remembered(system, before), system.z)
        decayed = system.z.exp() * before
        grad_c = grad_c + (grad_q * decayed.conj_physical()).sum(0)
        grad_z = grad_z + of_powers.sum(0) + (grad_q * (system.c * decayed).conj_physical()).sum(0)
    grad_A, grad_dt, grad_C = discretised_backward(grad_z, grad_c, system.A, system.dt, system.C, rule)
    return [
        grad_x.addcmul_(D.to(dtype), grad).to(x.dtype),
        (grad_A.real * system.A.real).to(A_log.dtype),
        grad_A.imag.to(A_imag.dtype, copy=True),
        torch.view_as_real(grad_C).to(C.dtype),
        (grad * x.to(dtype)).sum((0, 1)).to(D.dtype),
        (grad_dt * system.dt).to(log_dt.dtype),
    ]


@custom_op(f"{NAMESPACE}::s4d_step", mutates_args={"state"})
def s4d_step(
    x: Tensor,
    A_log: Tensor,
    A_imag: Tensor,
    C: Tensor,
    D: Tensor,
    log_dt: Tensor,
    positions: Tensor | None,
    state: Tensor,
    rule: str,
) -> Tensor:
    """Advance `state` by one token in place; return y `[B, 1, D]`."""
    dtype = promote(x.dtype)
    system = _system(A_log, A_imag, C, log_dt, rule, dtype)
    wide = x[:, 0].to(dtype)
    s = torch.view_as_complex(state.to(dtype)) * system.z.exp()
    if positions is not None:
        s = s.masked_fill((positions[:, 0] == 0)[:, None, None], 0.0)
    s = s + wide[..., None]
    state.copy_(torch.view_as_real(s))
    y = 2 * (system.c * s).real.sum(-1) + D.to(dtype) * wide
    return y.to(x.dtype)[:, None]


def _remembered(system: _System, before: Tensor) -> Tensor:
    """The coefficients `[B, D, N / 2]` of what a state from before adds to each y."""
    return system.c * system.z.exp() * before


def _until_reset(y: Tensor, positions: Tensor | None) -> Tensor:
    """y `[B, T, D]`, zero from the first token at position 0 on."""
    return y if positions is None else y.masked_fill(((positions == 0).cumsum(1) > 0)[..., None], 0.0)


def _final_state(x: Tensor, z: Tensor, before: Tensor, positions: Tensor | None) -> Tensor:
    """The state behind the last token `[B, D, N / 2]`."""
    old = before * (z.to(torch.complex128) * x.shape[1]).exp().to(z.dtype)
    if positions is not None:
        resets = (positions == 0).long()
        later = resets.flip(1).cumsum(1).flip(1)  # documents that begin here or later
        x = x.masked_fill((later > resets)[..., None], 0.0)
        old = old.masked_fill((later[:, 0] > 0)[:, None, None], 0.0)
    return old + moments(x.flip(1).mT, z)


# Shapes, gradients and counts.


@s4d_fwd.register_fake
def _(x: Tensor, A_log: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    batch, length, channels = x.shape
    dtype, initial = promote(x.dtype), rest[-2]
    final = (0,) if initial is None else (batch, *A_log.shape, 2)
    kernel = x.new_empty(channels, length, dtype=dtype)
    return x.new_empty(x.shape), kernel, x.new_empty(final, dtype=dtype)


@s4d_bwd.register_fake
def _(grad_y: Tensor, kernel: Tensor, *saved: Any) -> list[Tensor]:
    return [one.new_empty(one.shape) for one in saved[:6]]


@s4d_step.register_fake
def _(x: Tensor, *_: Any) -> Tensor:
    return x.new_empty(x.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    *saved, rule = inputs
    ctx.save_for_backward(output[1], *saved)
    ctx.rule = rule
    ctx.mark_non_differentiable(*output[1:])


def _backward(ctx: Any, grad_y: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    return (*s4d_bwd(grad_y, *ctx.saved_tensors, ctx.rule), None, None, None)


s4d_fwd.register_autograd(_backward, setup_context=_setup_context)


def step_flops(B: int, D: int, n: int) -> int:
    """One token of the recurrence: 11 operations for each complex state, 3 for each channel."""
    return B * D * (11 * n + 3)


_ops = getattr(torch.ops, NAMESPACE)
keep_results(_ops.s4d_fwd)


@register_flop_formula(_ops.s4d_fwd)
def _(x: Any, A_log: Any, *_: Any, **__: Any) -> int:
    """Of a whole sequence; a state from before and the one that is left are not counted."""
    return fft_conv.forward_flops(*x) + product_flops(x[2], x[1], A_log[1])


@register_flop_formula(_ops.s4d_bwd)
def _(grad: Any, kernel: Any, x: Any, A_log: Any, *_: Any, **__: Any) -> int:
    return fft_conv.backward_flops(*x) + 2 * product_flops(x[2], x[1], A_log[1])


@register_flop_formula(_ops.s4d_step)
def _(x: Any, A_log: Any, *_: Any, **__: Any) -> int:
    return step_flops(x[0], x[2], A_log[1])
