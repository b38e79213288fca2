"""Attention to the keys and values of an earlier layer (Brandon et al. 2024, arXiv:2405.12981; YOCO, arXiv:2405.05254).

The layer that makes them hands them on as `KeysValues`, and keeps them between tokens for all that read them.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from . import attention_paths as paths
from .attention import AttentionState, attention_fwd
from .namespace import NAMESPACE


class KeysValues(NamedTuple):
    """What T tokens of an earlier layer left, behind the S - T keys before them that they still see."""

    k: Tensor  # [B, S, G, K]
    v: Tensor  # [B, S, G, V]
    slots: AttentionState | None  # where a single token that continues a stream finds them instead


def keys_values(k: Tensor, v: Tensor, *, window: int | None = None, state: AttentionState | None = None) -> KeysValues:
    """What other layers will attend to: k `[B, T, G, K]`, v `[B, T, G, V]`, before attention writes them to `state`.

    A chunk copies what its window still sees of the state, whose slots it is about to overwrite; that waits for a GPU.
    """
    T = k.shape[1]
    if state is None or T == 1:
        return KeysValues(k, v, state)
    past, capacity = int(state.length), state.k.shape[1]
    seen = min(past, capacity if window is None else window - 1)
    old = torch.arange(past - seen, past, device=k.device) % capacity
    return KeysValues(torch.cat((state.k[:, old].to(k), k), 1), torch.cat((state.v[:, old].to(v), v), 1), None)


def attention_to(
    q: Tensor,
    kv: KeysValues | None,
    *,
    scale: float,
    window: int | None = None,
    cap: float | None = None,
    positions: Tensor | None = None,
) -> Tensor:
    """softmax(scale * q k^T) v over the keys and values of an earlier layer: q `[B, T, H, K]`, `[B, T, H, V]` back.

    Visibility, `window`, `cap` and `positions` are those of `attention`. Raises ValueError without an earlier layer.
    """
    if kv is None:
        raise ValueError("no earlier layer has handed on keys and values")
    if kv.slots is not None:
        out: Tensor = attention_to_slots(q, kv.slots.k, kv.slots.v, kv.slots.length, positions, scale, window, cap)
    else:
        out, _ = attention_fwd(q, kv.k, kv.v, positions, scale, window, cap)
    return out


@torch.library.custom_op(f"{NAMESPACE}::attention_to_slots", mutates_args=())
def attention_to_slots(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    length: Tensor,
    positions: Tensor | None,
    scale: float,
    window: int | None,
    cap: float | None = None,
) -> Tensor:
    """Attention of one token whose keys the caches already hold: `[B, 1, H, V]`."""
    return paths.decode(q, k_cache, v_cache, length, positions, scale, window, cap).contiguous()


@attention_to_slots.register_fake
def _(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    length: Tensor,
    positions: Tensor | None,
    scale: float,
    window: int | None,
    cap: float | None = None,
) -> Tensor:
    return q.new_empty(*q.shape[:3], v_cache.shape[3])


@register_flop_formula(getattr(torch.ops, NAMESPACE).attention_to_slots)
def _flops(q: tuple[int, ...], k_cache: tuple[int, ...], v_cache: tuple[int, ...], *_: object, **__: object) -> int:
    """The last token that fits, as `attention_cached` counts it."""
    B, _one, H, K = q
    return 2 * (K + v_cache[3]) * B * H * k_cache[1]
