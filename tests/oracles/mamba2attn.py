"""Mamba-2 with attention layers, one token at a time.

Dao & Gu 2024, arXiv:2405.21060, section 7 and 9.2.3. What the paper leaves open is as in state-spaces/mamba:
the norm comes behind the gate; the convolution of attention runs over q, k and v, has a bias and no activation, and
stands before the rotation, which takes the first dimensions of each head and rotates halves.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tests.oracles.mamba import inside, of_layer, rms, silu


def mamba2attn(w: Mapping[str, Tensor], tokens: Tensor, *, d_head: int, rotated: int, theta: float = 1e4) -> Tensor:
    """Logits `[B, T, V]` of tokens `[B, T]`; `w` are weights by name. `d_head` is a head's of attention."""
    h = w["embed.weight"][tokens]
    n_layers = 1 + max(int(name.split(".")[1]) for name in w if name.startswith("layers."))
    for i in range(n_layers):
        own = of_layer(w, i)
        mixer = inside(own, "mixer.")
        normed = rms(h, own["mixer_norm.weight"])
        if "A_log" in mixer:
            h = h + torch.stack([mamba2(mixer, x) for x in normed])
        else:
            h = h + torch.stack([attention(mixer, x, d_head, rotated, theta) for x in normed])
    return rms(h, w["norm.weight"]) @ w["embed.weight"].T


def mamba2(w: Mapping[str, Tensor], h: Tensor) -> Tensor:
    """One sequence h `[T, d]`; all heads read the same B and C."""
    A = -w["A_log"].exp()
    n_heads = len(A)
    d_inner = w["out_proj.weight"].shape[1]
    d_head = d_inner // n_heads
    channels = len(w["conv1d.weight"])
    d_state = (channels - d_inner) // 2
    state = torch.zeros(n_heads, d_head, d_state, dtype=h.dtype)
    past: list[Tensor] = []
    out = []
    for token in h:
        z, xBC, dt = (w["in_proj.weight"] @ token).split([d_inner, channels, n_heads])
        past.append(xBC)
        x, B, C = silu(convolved(past, w["conv1d.weight"], w["conv1d.bias"])).split([d_inner, d_state, d_state])
        x = x.view(n_heads, d_head)
        dt = (1 + (dt + w["dt_bias"]).exp()).log()
        for i in range(n_heads):
            new = (dt[i] * A[i]).exp() * state[i] + dt[i] * x[i][:, None] * B[None, :]
            state = torch.cat([state[:i], new[None], state[i + 1 :]])
        y = torch.stack([state[i] @ C + w["D"][i] * x[i] for i in range(n_heads)]).flatten()
        out.append(w["out_proj.weight"] @ rms(y * silu(z), w["norm.weight"]))
    return torch.stack(out)


def attention(w: Mapping[str, Tensor], h: Tensor, d_head: int, rotated: int, theta: float) -> Tensor:
    """One sequence h `[T, d]`; as many heads of keys and values as of queries."""
    projected: list[Tensor] = []
    keys: list[Tensor] = []
    values: list[Tensor] = []
    out = []
    for t, token in enumerate(h):
        projected.append(w["qkv_proj.weight"] @ token)
        qkv = convolved(projected, w["qkv_conv.weight"], w["qkv_conv.bias"])
        q, k, v = qkv.view(3, -1, d_head)
        keys.append(turned(k, t, rotated, theta))
        values.append(v)
        scores = torch.stack([(turned(q, t, rotated, theta) * k).sum(-1) for k in keys]) / d_head**0.5  # [T, H]
        weights = scores.exp() / scores.exp().sum(0)
        out.append(w["o_proj.weight"] @ (weights[:, :, None] * torch.stack(values)).sum(0).flatten())
    return torch.stack(out)


def convolved(past: list[Tensor], weight: Tensor, bias: Tensor) -> Tensor:
    """The depthwise convolution at the last of the inputs `past`."""
    filters = weight[:, 0]  # [C, K], the last column for the present
    return sum((filters[:, -1 - i] * x for i, x in enumerate(reversed(past[-filters.shape[1] :]))), bias)


def turned(heads: Tensor, t: int, rotated: int, theta: float) -> Tensor:
    """Heads `[H, d_head]` at position t, their first `rotated` dimensions turned in pairs (i, i + rotated / 2)."""
    half = rotated // 2
    angles = t * theta ** (-torch.arange(half, dtype=heads.dtype) / half)
    a, b, rest = heads.split([half, half, heads.shape[1] - rotated], 1)
    return torch.cat([a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos(), rest], 1)
