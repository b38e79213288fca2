"""Multi-head latent attention (DeepSeek-AI 2024, arXiv:2405.04434).

A whole sequence projects keys and values from its latents and attends as usual. With a state the projections are
absorbed instead: queries and outputs go through them, and attention runs over the latents themselves, one key head for
all query heads. Both are the same function.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from . import attention_paths as paths
from .attention import attention, pairs
from .namespace import NAMESPACE


class LatentState(NamedTuple):
    """What one layer keeps of the tokens it has seen."""

    latent: Tensor  # [B, context, rank + R]: the latent, then the rotated key that all heads share
    length: Tensor  # 0-d int64: tokens seen before this call; shared with the Cache, which advances it


def latent_attention(
    q_nope: Tensor,
    q_rope: Tensor,
    c: Tensor,
    k_rope: Tensor,
    weight: Tensor,
    *,
    scale: float,
    positions: Tensor | None = None,
    state: LatentState | None = None,
) -> Tensor:
    """Causal attention `[B, T, H, V]` of q_nope `[B, T, H, K]` and q_rope `[B, T, H, R]`.

    c `[B, T, rank]` are the latents, k_rope `[B, T, 1, R]` the shared keys; weight `[H (K + V), rank]` holds each
    head's key rows, then its value rows. positions and state as for `attention`.
    """
    heads, width = q_nope.shape[2:]
    if state is None:
        k_nope, v = torch.unflatten(F.linear(c, weight), -1, (heads, -1)).tensor_split([width], -1)
        k = torch.cat((k_nope, k_rope.expand(-1, -1, heads, -1)), -1)
        return attention(torch.cat((q_nope, q_rope), -1), k, v, scale=scale, positions=positions)
    keys, values = torch.unflatten(weight, 0, (heads, -1)).tensor_split([width], 1)  # [H, K, rank], [H, V, rank]
    q = torch.cat((torch.einsum("bthk,hkr->bthr", q_nope, keys), q_rope), -1)
    new = torch.cat((c, k_rope.squeeze(2)), -1)
    seen = latent_cached(q, new, state.latent, state.length, positions, scale, c.shape[-1])
    return torch.einsum("bthr,hvr->bthv", seen, values)


@torch.library.custom_op(f"{NAMESPACE}::latent_cached", mutates_args=("latent",))
def latent_cached(
    q: Tensor, new: Tensor, latent: Tensor, length: Tensor, positions: Tensor | None, scale: float, rank: int
) -> Tensor:
    """Append `new` `[B, T, rank + R]` to the latents, and attend to them with q `[B, T, H, rank + R]`."""
    T, capacity = new.shape[1], latent.shape[1]
    past = int(length) if T > 1 or length.device.type == "cpu" else 0
    if past + T > capacity:
        raise ValueError(f"{T} more tokens do not fit a cache of {capacity} that holds {past}")
    latent.index_copy_(1, (length + torch.arange(T, device=new.device)) % capacity, new.to(latent.dtype))
    keys = latent.unsqueeze(2)
    if T == 1:
        return paths.decode(q, keys, keys[..., :rank], length, positions, scale, None, None).contiguous()
    if positions is not None and bool((positions == past + torch.arange(T, device=new.device)).all()):
        positions = None  # one document since the stream began
    keys = keys[:, : past + T].to(q.dtype)
    return paths.forward(q, keys, keys[..., :rank], positions, scale, None, None)[0].contiguous()


@latent_cached.register_fake
def _(
    q: Tensor, new: Tensor, latent: Tensor, length: Tensor, positions: Tensor | None, scale: float, rank: int
) -> Tensor:
    return q.new_empty(*q.shape[:3], rank)


@register_flop_formula(getattr(torch.ops, NAMESPACE).latent_cached)
def _flops(
    q: tuple[int, ...],
    new: object,
    latent: tuple[int, ...],
    length: object,
    positions: object,
    scale: float,
    rank: int,
    **_: object,
) -> int:
    """A chunk counts as the first one, a single token as the last that fits, as `attention_cached` does."""
    B, T, H, width = q
    return 2 * (width + rank) * B * H * (latent[1] if T == 1 else pairs(T, None))
