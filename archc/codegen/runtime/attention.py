"""Causal attention with grouped keys, sliding windows, packed documents and a cache.

Sources: Vaswani et al. 2017, arXiv:1706.03762; Ainslie et al. 2023 (grouped queries), arXiv:2305.13245; Dao 2023
(FlashAttention-2), arXiv:2307.08691.

Token i of a stream sees the keys j of its own document with i - window < j <= i: exactly `window` of them, itself
included. One rule covers windows and documents: with p_i the token's index within its document,
i - min(p_i, window - 1) <= j <= i. Which implementation runs when is said in `attention_paths.py`.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from . import attention_paths as paths
from .namespace import NAMESPACE
from .precision import promote
from .recompute import keep_results


class AttentionState(NamedTuple):
    """Keys and values of one attention layer; with a window, a ring: token i lies in slot i % capacity."""

    k: Tensor  # [B, min(context, window), G, K]
    v: Tensor  # [B, min(context, window), G, V]
    length: Tensor  # 0-d int64: tokens seen before this call; shared with the Cache, which advances it


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    scale: float,
    window: int | None = None,
    cap: float | None = None,
    positions: Tensor | None = None,
    state: AttentionState | None = None,
) -> Tensor:
    """softmax(scale * q k^T) v over what each token sees: q `[B, T, H, K]`, k `[B, T, G, K]`, v `[B, T, G, V]`.

    Head h reads group h // (H / G). With a `cap` the scores s are cap * tanh(s / cap). positions `[B, T]` int64 is the
    index of each token within its document, 0 starting a new one; None means one document. Returns `[B, T, H, V]`.

    With a `state` the T tokens continue its stream and are written to it: T = 1 is the decoding step, and T may exceed
    the capacity of a window's ring. There is no gradient. Raises ValueError if the tokens do not fit a cache that is
    no ring, except that a single one on a GPU overwrites the first: there `Cache.advance` raises it.
    """
    if state is not None:
        out: Tensor = attention_cached(q, k, v, state.k, state.v, state.length, positions, scale, window, cap)
    else:
        out, _ = attention_fwd(q, k, v, positions, scale, window, cap)
    return out


def pairs(T: int, window: int | None) -> int:
    """Visible (query, key) pairs of one document of T tokens."""
    seen = T if window is None else min(T, window)
    return seen * (seen + 1) // 2 + (T - seen) * seen


def forward_flops(B: int, T: int, H: int, K: int, V: int, window: int | None) -> int:
    """Two products, q k^T and p v, a multiply-add being two."""
    return 2 * (K + V) * B * H * pairs(T, window)


def backward_flops(B: int, T: int, H: int, K: int, V: int, window: int | None) -> int:
    """Five products: q k^T again, then the gradients of p, v, q and k. For K = V, 2.5 times the forward."""
    return 2 * (3 * K + 2 * V) * B * H * pairs(T, window)


@torch.library.custom_op(f"{NAMESPACE}::attention_fwd", mutates_args=())
def attention_fwd(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    positions: Tensor | None,
    scale: float,
    window: int | None,
    cap: float | None = None,
) -> tuple[Tensor, Tensor]:
    """The output `[B, T, H, V]` and each row's log of the sum of exponentials `[B, H, T]`."""
    out, lse = paths.forward(q, k, v, positions, scale, window, cap)
    return out.contiguous(), lse.contiguous()


@torch.library.custom_op(f"{NAMESPACE}::attention_bwd", mutates_args=())
def attention_bwd(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    positions: Tensor | None,
    scale: float,
    window: int | None,
    cap: float | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v from that of out."""
    grads = paths.backward(grad, q, k, v, out, lse, positions, scale, window, cap)
    grad_q, grad_k, grad_v = (g.contiguous() for g in grads)
    return grad_q, grad_k, grad_v


@torch.library.custom_op(f"{NAMESPACE}::attention_cached", mutates_args=("k_cache", "v_cache"))
def attention_cached(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    length: Tensor,
    positions: Tensor | None,
    scale: float,
    window: int | None,
    cap: float | None = None,
) -> Tensor:
    """Append k and v to the caches and attend: `[B, T, H, V]`. A chunk (T > 1) reads `length`, waiting for a GPU."""
    T, capacity = k.shape[1], k_cache.shape[1]
    keys, values = k.to(k_cache.dtype), v.to(v_cache.dtype)
    is_ring = window is not None and window <= capacity
    past = int(length) if T > 1 or length.device.type == "cpu" else 0
    whole = past + T <= capacity  # nothing was or will be overwritten
    if not whole and not is_ring:
        raise ValueError(f"{T} more tokens do not fit a cache of {capacity} that holds {past}")
    if T > 1 and positions is not None and bool((positions == past + torch.arange(T, device=k.device)).all()):
        positions = None  # one document since the stream began
    if T > 1 and not whole:  # what the window still sees, in order, before the new tokens overwrite it
        assert window is not None
        old = torch.arange(max(past - window + 1, 0), past, device=k.device) % capacity
        keys, values = torch.cat((k_cache[:, old], keys), 1), torch.cat((v_cache[:, old], values), 1)
    kept = (length + torch.arange(max(T - capacity, 0), T, device=k.device)) % capacity
    k_cache.index_copy_(1, kept, keys[:, -len(kept) :])
    v_cache.index_copy_(1, kept, values[:, -len(kept) :])
    if T == 1:
        return paths.decode(q, k_cache, v_cache, length, positions, scale, window, cap).contiguous()
    if whole:
        keys, values = k_cache[:, : past + T], v_cache[:, : past + T]
    return paths.forward(q, keys.to(q.dtype), values.to(q.dtype), positions, scale, window, cap)[0].contiguous()


# Shapes, gradients and counts.


@attention_fwd.register_fake
def _(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    positions: Tensor | None,
    scale: float,
    window: int | None,
    cap: float | None = None,
) -> tuple[Tensor, Tensor]:
    B, T, H, _ = q.shape
    return q.new_empty(B, T, H, v.shape[3]), q.new_empty(B, H, T, dtype=promote(q.dtype))


@attention_bwd.register_fake
def _(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    positions: Tensor | None,
    scale: float,
    window: int | None,
    cap: float | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


@attention_cached.register_fake
def _(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    length: Tensor,
    positions: Tensor | None,
    scale: float,
    window: int | None,
    cap: float | None = None,
) -> Tensor:
    return q.new_empty(*q.shape[:3], v.shape[3])


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, positions, *ctx.options = inputs
    ctx.save_for_backward(q, k, v, *output, positions)
    ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, grad: Tensor, _grad_lse: Tensor) -> tuple[Tensor | None, ...]:
    return *attention_bwd(grad, *ctx.saved_tensors, *ctx.options), *[None] * (1 + len(ctx.options))


attention_fwd.register_autograd(_backward, setup_context=_save)
keep_results(getattr(torch.ops, NAMESPACE).attention_fwd)


@register_flop_formula(getattr(torch.ops, NAMESPACE).attention_fwd)
def _fwd_flops(
    q: Any, k: Any, v: Any, positions: Any, scale: Any, window: int | None, cap: Any = None, **_: Any
) -> int:
    """Packed documents count as one, here and below: the counter sees shapes only."""
    B, T, H, K = q
    return forward_flops(B, T, H, K, v[3], window)


@register_flop_formula(getattr(torch.ops, NAMESPACE).attention_bwd)
def _bwd_flops(
    grad: Any,
    q: Any,
    k: Any,
    v: Any,
    out: Any,
    lse: Any,
    positions: Any,
    scale: Any,
    window: int | None,
    cap: Any = None,
    **_: Any,
) -> int:
    B, T, H, K = q
    return backward_flops(B, T, H, K, v[3], window)


@register_flop_formula(getattr(torch.ops, NAMESPACE).attention_cached)
def _cached_flops(
    q: Any,
    k: Any,
    v: Any,
    k_cache: Any,
    v_cache: Any,
    length: Any,
    positions: Any,
    scale: Any,
    window: Any,
    cap: Any = None,
    **_: Any,
) -> int:
    """A chunk counts as the first one, a single token as the last that fits: how full the cache is cannot be seen."""
    B, T, H, K = q
    seen: int = k_cache[1] if T == 1 else pairs(T, window)
    return int(2 * (K + v[3]) * B * H * seen)
