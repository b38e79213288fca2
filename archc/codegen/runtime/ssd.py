"""State space duality, Mamba-2's recurrence: whole sequences, chunks and single tokens (Dao & Gu, arXiv:2405.21060).

    dt[t] = clamp(softplus(dt[t] + dt_bias), dt_limit)
    h[t] = exp(dt[t] A) h[t-1] + (dt[t] x[t]) ⊗ B[t],    A = -exp(A_log), a scalar for each head
    y[t] = h[t] C[t] + D x[t]

A token at position 0 starts from h = 0. The state is kept in at least float32.

What runs when: plain torch, on every device and for every dtype. Sequences go through the chunked form in
`ssd_chunks.py`, whose work is matrix products in `promote(x.dtype)`; a single token of decoding is the recurrence, in
place.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.library import custom_op
from torch.utils.flop_counter import register_flop_formula

from . import ssd_chunks
from .namespace import NAMESPACE
from .precision import promote


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
    chunk: int = 256,
    positions: Tensor | None = None,
    state: Tensor | None = None,
) -> Tensor:
    """Return y `[B, T, H, P]`, differentiable in everything but `state`, which the final state replaces.

    Activations may be any views with a contiguous last dimension. Whoever needs gradients of the states calls
    `ssd_fwd`, which takes an initial and returns the final one.

    Args:
        x: inputs `[B, T, H, P]`.
        dt: step sizes `[B, T, H]`, before bias and softplus.
        A_log: `[H]`.
        B: what a token writes to the state `[B, T, G, N]`; head i has group i // (H / G).
        C: what it reads `[B, T, G, N]`.
        D: skip weights `[H]` or `[H, P]`.
        dt_bias: `[H]`.
        dt_limit: bounds of the step sizes; None for no upper one.
        chunk: tokens that are computed at once, which changes memory and rounding alone.
        positions: each token's index in its document `[B, T]`; None for one document.
        state: `[B, H, P, N]`, written in place.
    """
    low, high = dt_limit[0], math.inf if dt_limit[1] is None else dt_limit[1]
    y: Tensor
    if state is not None and x.shape[1] == 1 and not torch.is_grad_enabled():
        y = ssd_step(x, dt, A_log, B, C, D, dt_bias, positions, state, low, high)
        return y
    y, final, _ = ssd_fwd(x, dt, A_log, B, C, D, dt_bias, positions, state, low, high, chunk)
    if state is not None:
        state.copy_(final.detach())
    return y


@custom_op(f"{NAMESPACE}::ssd_fwd", mutates_args=())
def ssd_fwd(
    x: Tensor,
    dt: Tensor,
    A_log: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    dt_bias: Tensor,
    positions: Tensor | None,
    initial: Tensor | None,
    dt_min: float,
    dt_max: float,
    chunk: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return y, the final state and the states `[B, ceil(T / chunk), H, P, N]` from which backward starts."""
    dtype = promote(x.dtype)
    wide, (_, step), A = x.to(dtype), _step_sizes(dt, dt_bias, dt_min, dt_max, dtype), -A_log.to(dtype).exp()
    u = wide * step[..., None]
    y, final, states = ssd_chunks.forward(u, step * A, B.to(dtype), C.to(dtype), positions, initial, chunk)
    y.addcmul_(wide, _skip(D, dtype))
    return y.to(x.dtype), final, states


@custom_op(f"{NAMESPACE}::ssd_step", mutates_args={"state"})
def ssd_step(
    x: Tensor,
    dt: Tensor,
    A_log: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    dt_bias: Tensor,
    positions: Tensor | None,
    state: Tensor,
    dt_min: float,
    dt_max: float,
) -> Tensor:
    """Advance `state` by one token in place; return y `[B, 1, H, P]`."""
    dtype = promote(x.dtype)
    wide, (_, step), A = x.to(dtype), _step_sizes(dt, dt_bias, dt_min, dt_max, dtype), -A_log.to(dtype).exp()
    y = ssd_chunks.step(wide * step[..., None], step * A, B.to(dtype), C.to(dtype), positions, state)
    return y.addcmul_(wide, _skip(D, dtype)).to(x.dtype)


@custom_op(f"{NAMESPACE}::ssd_bwd", mutates_args=())
def ssd_bwd(
    grad_y: Tensor,
    grad_final: Tensor | None,
    x: Tensor,
    dt: Tensor,
    A_log: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    dt_bias: Tensor,
    positions: Tensor | None,
    states: Tensor,
    dt_min: float,
    dt_max: float,
    chunk: int,
) -> list[Tensor]:
    """Return the gradients of x, dt, A_log, B, C, D, dt_bias and the initial state."""
    dtype = promote(x.dtype)
    wide, (raw, step), A = x.to(dtype), _step_sizes(dt, dt_bias, dt_min, dt_max, dtype), -A_log.to(dtype).exp()
    grad = grad_y.to(dtype)
    u, a = wide * step[..., None], step * A
    grad_u, grad_a, grad_B, grad_C, grad_initial = ssd_chunks.backward(
        grad, grad_final, u, a, B.to(dtype), C.to(dtype), positions, states, chunk
    )
    grad_step = (grad_u * wide).sum(-1) + grad_a * A
    unlimited = F.softplus(raw)
    grad_step = grad_step.masked_fill((unlimited < dt_min) | (unlimited > dt_max), 0.0)
    grad_raw = torch.ops.aten.softplus_backward(grad_step, raw, 1.0, 20.0)  # the defaults of F.softplus
    return [
        (grad_u * step[..., None]).addcmul_(grad, _skip(D, dtype)).to(x.dtype),
        grad_raw.to(dt.dtype),
        (grad_a * a).sum((0, 1)).to(A_log.dtype),
        grad_B.to(B.dtype),
        grad_C.to(C.dtype),
        (grad * wide).sum((0, 1) if D.dim() == 2 else (0, 1, 3)).to(D.dtype),
        grad_raw.sum((0, 1)).to(dt_bias.dtype),
        grad_initial,
    ]


def _step_sizes(dt: Tensor, dt_bias: Tensor, dt_min: float, dt_max: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """dt with its bias, and the step sizes that it means, `[B, T, H]` each."""
    raw = dt.to(dtype) + dt_bias.to(dtype)
    return raw, F.softplus(raw).clamp(dt_min, dt_max)


def _skip(D: Tensor, dtype: torch.dtype) -> Tensor:
    """`[H]` as `[H, 1]`, `[H, P]` as it is."""
    return D.to(dtype).view(D.shape[0], -1)


# Shapes, gradients and counts.


@ssd_fwd.register_fake
def _(
    x: Tensor, dt: Tensor, A_log: Tensor, B: Tensor, C: Tensor, D: Tensor, dt_bias: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    batch, length, heads, width = x.shape
    d_state, chunk, dtype = B.shape[3], rest[-1], promote(x.dtype)
    final = x.new_empty(batch, heads, width, d_state, dtype=dtype)
    states = x.new_empty(batch, (length + chunk - 1) // chunk, heads, width, d_state, dtype=dtype)
    return x.new_empty(x.shape), final, states


@ssd_step.register_fake
def _(x: Tensor, *_: Any) -> Tensor:
    return x.new_empty(x.shape)


@ssd_bwd.register_fake
def _(grad_y: Tensor, grad_final: Tensor | None, *saved: Any) -> list[Tensor]:
    *inputs, _positions, states, _min, _max, _chunk = saved
    return [*(one.new_empty(one.shape) for one in inputs), states.new_empty(states[:, 0].shape)]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    *saved, initial, dt_min, dt_max, chunk = inputs
    ctx.save_for_backward(*saved, output[2])
    ctx.has_initial, ctx.options = initial is not None, (dt_min, dt_max, chunk)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad_y: Tensor | None, grad_final: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors
    if grad_y is None:
        grad_y = torch.zeros_like(saved[0])
    *grads, grad_initial = ssd_bwd(grad_y, grad_final, *saved, *ctx.options)
    return (*grads, None, grad_initial if ctx.has_initial else None, None, None, None)


ssd_fwd.register_autograd(_backward, setup_context=_setup_context)


def step_flops(B: int, H: int, P: int, N: int) -> int:
    """One token of the recurrence: 5 operations per state, 3 per channel, 2 per head."""
    return B * H * (P * (5 * N + 3) + 2)


Sizes = tuple[int, ...]
_ops = getattr(torch.ops, NAMESPACE)


@register_flop_formula(_ops.ssd_fwd)
def _(x: Sizes, dt: Any, A_log: Any, B: Sizes, *rest: Any, **_: Any) -> int:
    return ssd_chunks.forward_flops(x[0], x[1], x[2], x[3], B[2], B[3], rest[-1])


@register_flop_formula(_ops.ssd_step)
def _(x: Sizes, dt: Any, A_log: Any, B: Sizes, *_: Any, **__: Any) -> int:
    return step_flops(x[0], x[2], x[3], B[3])


@register_flop_formula(_ops.ssd_bwd)
def _(y: Sizes, final: Any, x: Sizes, dt: Any, A_log: Any, B: Sizes, *rest: Any, **_: Any) -> int:
    return ssd_chunks.backward_flops(x[0], x[1], x[2], x[3], B[2], B[3], rest[-1])
