"""The gated delta rule: whole sequences, chunks and single tokens (Yang et al. 2024, arXiv:2412.06464).

    a[t] = exp(-exp(A_log) softplus(a[t] + dt_bias)),  b[t] = most sigmoid(b[t]),  q, k of length 1
    S[t] = a[t] S[t-1] + k[t] (b[t] (v[t] - (a[t] S[t-1])^T k[t]))^T          S [K, V] for each head
    y[t] = S[t]^T q[t] / sqrt(K)

A token at position 0 starts from S = 0. The state is kept in at least float32.

What runs when: plain torch, on every device and for every dtype, in `promote(q.dtype)`: sequences in chunks of `CHUNK`
tokens (`gated_delta_chunks.py`), a single token of decoding as the recurrence, in place.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.library import custom_op
from torch.utils.flop_counter import register_flop_formula

from . import gated_delta_chunks as chunks
from .namespace import NAMESPACE
from .precision import promote
from .recompute import keep_results

CHUNK = 64
EPS = 1e-6  # inside the root of q's and k's length


def gated_delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    b: Tensor,
    a: Tensor,
    A_log: Tensor,
    dt_bias: Tensor,
    *,
    most: float = 1.0,
    positions: Tensor | None = None,
    state: Tensor | None = None,
) -> Tensor:
    """Return y `[B, T, H, V]`, differentiable in everything but `state`, which the final state replaces.

    Args:
        q: queries `[B, T, G, K]`; head i reads group i // (H / G), of k as well.
        k: keys `[B, T, G, K]`.
        v: values `[B, T, H, V]`.
        b: before its sigmoid, the share of a value that is written `[B, T, H]`.
        a: before bias and softplus, how fast the state fades `[B, T, H]`.
        A_log: `[H]`.
        dt_bias: `[H]`.
        most: the share of a value that is written at most; above 1 the state may turn round.
        positions: each token's index in its document `[B, T]`; None for one document.
        state: `[B, H, K, V]`, written in place.
    """
    y: Tensor
    if state is not None and q.shape[1] == 1 and not torch.is_grad_enabled():
        y = gated_delta_step(q, k, v, b, a, A_log, dt_bias, positions, state, most)
        return y
    y, final, _ = gated_delta_fwd(q, k, v, b, a, A_log, dt_bias, positions, state, most)
    if state is not None:
        state.copy_(final.detach())
    return y


@custom_op(f"{NAMESPACE}::gated_delta_fwd", mutates_args=())
def gated_delta_fwd(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    b: Tensor,
    a: Tensor,
    A_log: Tensor,
    dt_bias: Tensor,
    positions: Tensor | None,
    initial: Tensor | None,
    most: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return y, the final state and the states `[B, ceil(T / CHUNK), H, K, V]` before each chunk."""
    dtype, heads = promote(q.dtype), v.shape[2]
    state = q.new_zeros(q.shape[0], heads, q.shape[3], v.shape[3], dtype=dtype) if initial is None else initial
    y, final, states = chunks.forward(
        *_prepared(q, k, v, b, a, A_log, dt_bias, most, dtype), _starts(positions), state, CHUNK
    )
    return y.transpose(1, 2).to(q.dtype).contiguous(), final.clone(), states


@custom_op(f"{NAMESPACE}::gated_delta_step", mutates_args={"state"})
def gated_delta_step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    b: Tensor,
    a: Tensor,
    A_log: Tensor,
    dt_bias: Tensor,
    positions: Tensor | None,
    state: Tensor,
    most: float,
) -> Tensor:
    """Advance `state` by one token in place; return y `[B, 1, H, V]`."""
    prepared = _prepared(q, k, v, b, a, A_log, dt_bias, most, promote(q.dtype))
    query, key, value, decay, share = (x[:, :, 0] for x in prepared)
    y, new = chunks.step(query, key, value, decay, share, _starts(positions), state)
    state.copy_(new)
    return y.unsqueeze(1).to(q.dtype)


@custom_op(f"{NAMESPACE}::gated_delta_bwd", mutates_args=())
def gated_delta_bwd(
    grad_y: Tensor,
    grad_final: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    b: Tensor,
    a: Tensor,
    A_log: Tensor,
    dt_bias: Tensor,
    positions: Tensor | None,
    states: Tensor,
    most: float,
) -> list[Tensor]:
    """Return the gradients of q, k, v, b, a, A_log, dt_bias and the initial state."""
    dtype, groups = promote(q.dtype), q.shape[2]
    tensors = _prepared(q, k, v, b, a, A_log, dt_bias, most, dtype)
    grad_state = torch.zeros_like(states[:, 0]) if grad_final is None else grad_final.to(dtype)
    grad = grad_y.transpose(1, 2).to(dtype)
    dq, dk, dv, dg, db, grad_initial = chunks.backward(grad, grad_state, *tensors, _starts(positions), states, CHUNK)
    raw, rate = a.to(dtype) + dt_bias.to(dtype), -A_log.to(dtype).exp()
    dg = dg.transpose(1, 2)
    grad_raw = torch.ops.aten.softplus_backward(dg * rate, raw, 1.0, 20.0)  # the defaults of F.softplus
    share = b.to(dtype).sigmoid()
    return [
        _unit_backward(dq, q, groups, q.shape[3] ** -0.5, dtype),
        _unit_backward(dk, k, groups, 1.0, dtype),
        dv.transpose(1, 2).to(v.dtype).contiguous(),
        (db.transpose(1, 2) * most * share * (1 - share)).to(b.dtype),
        grad_raw.to(a.dtype),
        (dg * F.softplus(raw) * rate).sum((0, 1)).to(A_log.dtype),
        grad_raw.sum((0, 1)).to(dt_bias.dtype),
        grad_initial,
    ]


def _prepared(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    b: Tensor,
    a: Tensor,
    A_log: Tensor,
    dt_bias: Tensor,
    most: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """q, k, v `[B, H, T, .]`, log decays and shares `[B, H, T]`."""
    repeats = v.shape[2] // q.shape[2]
    unit_q = _unit(q.to(dtype)) * q.shape[3] ** -0.5
    heads = (x.repeat_interleave(repeats, 2) if repeats > 1 else x for x in (unit_q, _unit(k.to(dtype))))
    decay = -A_log.to(dtype).exp() * F.softplus(a.to(dtype) + dt_bias.to(dtype))
    unit_q, unit_k = (x.transpose(1, 2) for x in heads)
    share = most * b.to(dtype).sigmoid()
    return unit_q, unit_k, v.to(dtype).transpose(1, 2), decay.transpose(1, 2), share.transpose(1, 2)


def _unit(x: Tensor) -> Tensor:
    return x * (x.square().sum(-1, keepdim=True) + EPS).rsqrt()


def _unit_backward(grad: Tensor, x: Tensor, groups: int, scale: float, dtype: torch.dtype) -> Tensor:
    """The gradient of x `[B, T, G, K]` from that of scale * x / |x| `[B, H, T, K]`."""
    grad = torch.unflatten(grad.transpose(1, 2), 2, (groups, -1)).sum(3) * scale
    wide = x.to(dtype)
    inverse = (wide.square().sum(-1, keepdim=True) + EPS).rsqrt()
    unit = wide * inverse
    return ((grad - unit * (grad * unit).sum(-1, keepdim=True)) * inverse).to(x.dtype).contiguous()


def _starts(positions: Tensor | None) -> Tensor | None:
    return None if positions is None else positions == 0


# Shapes, gradients and counts.


@gated_delta_fwd.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    (batch, length, heads, d_v), dtype = v.shape, promote(q.dtype)
    final = q.new_empty(batch, heads, q.shape[3], d_v, dtype=dtype)
    states = q.new_empty(batch, (length + CHUNK - 1) // CHUNK, heads, q.shape[3], d_v, dtype=dtype)
    return q.new_empty(v.shape), final, states


@gated_delta_step.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, *_: Any) -> Tensor:
    return q.new_empty(v.shape)


@gated_delta_bwd.register_fake
def _(grad_y: Tensor, grad_final: Tensor | None, *saved: Any) -> list[Tensor]:
    *inputs, _positions, states, _most = saved
    return [*(one.new_empty(one.shape) for one in inputs), states.new_empty(states[:, 0].shape)]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    *saved, initial, ctx.most = inputs
    ctx.save_for_backward(*saved, output[2])
    ctx.has_initial = initial is not None
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad_y: Tensor | None, grad_final: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors
    if grad_y is None:
        grad_y = torch.zeros_like(saved[2])
    *grads, grad_initial = gated_delta_bwd(grad_y, grad_final, *saved, ctx.most)
    return (*grads, None, grad_initial if ctx.has_initial else None, None)


gated_delta_fwd.register_autograd(_backward, setup_context=_setup_context)


def forward_flops(B: int, T: int, H: int, K: int, V: int) -> int:
    """Per chunk of L tokens and head: 2 products of L L K, one of L L V and a solution of L L V, 3 with the state."""
    full, rest = divmod(T, CHUNK)
    squares = full * CHUNK * CHUNK + rest * rest
    return B * H * (squares * (4 * K + 3 * V) + 6 * T * K * V)


def backward_flops(B: int, T: int, H: int, K: int, V: int) -> int:
    """Per chunk and head: 6 products of L L K, 3 of L L V and two solutions of L L V, 7 with the state."""
    full, rest = divmod(T, CHUNK)
    squares = full * CHUNK * CHUNK + rest * rest
    return B * H * (squares * (12 * K + 8 * V) + 14 * T * K * V)


Sizes = tuple[int, ...]
_ops = getattr(torch.ops, NAMESPACE)
keep_results(_ops.gated_delta_fwd)


@register_flop_formula(_ops.gated_delta_fwd)
def _(q: Sizes, k: Any, v: Sizes, *_: Any, **__: Any) -> int:
    return forward_flops(v[0], v[1], v[2], q[3], v[3])


@register_flop_formula(_ops.gated_delta_step)
def _(q: Sizes, k: Any, v: Sizes, *_: Any, **__: Any) -> int:
    return v[0] * v[2] * (7 * q[3] * v[3] + 2 * v[3])


@register_flop_formula(_ops.gated_delta_bwd)
def _(y: Any, final: Any, q: Sizes, k: Any, v: Sizes, *_: Any, **__: Any) -> int:
    return backward_flops(v[0], v[1], v[2], q[3], v[3])
