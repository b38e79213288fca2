"""Samba, one token at a time: Mamba, MLP, attention over a sliding window, MLP, and so on.

Ren et al. 2024, arXiv:2406.07522, section 2: each behind its norm and added to the stream; the MLPs are SwiGLU; the
window shows a token itself and the `window - 1` before it; positions are rotary, in attention alone.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tests.oracles.mamba import inside, mamba, of_layer, rms, silu
from tests.oracles.mamba2attn import turned


def samba(w: Mapping[str, Tensor], tokens: Tensor, *, n_layers: int, d_head: int, window: int) -> Tensor:
    """Logits `[B, T, V]` of tokens `[B, T]`; `w` are weights by name."""
    h = w["embed.weight"][tokens]
    for i in range(n_layers):
        own = of_layer(w, i)
        mixer, mlp = inside(own, "mixer."), inside(own, "mlp.")
        normed = rms(h, own["mixer_norm.weight"])
        mixed = [mamba(mixer, x) if i % 2 == 0 else attention(mixer, x, d_head, window) for x in normed]
        h = h + torch.stack(mixed)
        x = rms(h, own["mlp_norm.weight"])
        gate, up = x @ mlp["gate_proj.weight"].T, x @ mlp["up_proj.weight"].T
        h = h + (silu(gate) * up) @ mlp["down_proj.weight"].T
    return rms(h, w["norm.weight"]) @ w["embed.weight"].T


def attention(w: Mapping[str, Tensor], h: Tensor, d_head: int, window: int) -> Tensor:
    """One sequence h `[T, d]`; head i of the queries reads head i // (H / G) of the keys and values."""
    keys: list[Tensor] = []
    values: list[Tensor] = []
    out = []
    for t, token in enumerate(h):
        q = turned((w["q_proj.weight"] @ token).view(-1, d_head), t, d_head, 1e4)
        keys.append(turned((w["k_proj.weight"] @ token).view(-1, d_head), t, d_head, 1e4))
        values.append((w["v_proj.weight"] @ token).view(-1, d_head))
        seen = slice(max(0, t + 1 - window), t + 1)
        heads = []
        for i, query in enumerate(q):
            group = i // (len(q) // len(keys[0]))
            scores = torch.stack([k[group] @ query for k in keys[seen]]) / d_head**0.5
            weights = scores.exp() / scores.exp().sum()
            heads.append(weights @ torch.stack([v[group] for v in values[seen]]))
        out.append(w["o_proj.weight"] @ torch.cat(heads))
    return torch.stack(out)
