"""The linear transformer as a language model, one token at a time, each sublayer's sum behind a LayerNorm.

Katharopoulos et al. 2020, arXiv:2006.16236, equations (16) to (20) with phi(x) = elu(x) + 1; the model around it is the
baseline of Schlag et al. 2021, arXiv:2102.11174, section 6.3, without its sinusoids.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tests.oracles.adaptive import embedded, log_probabilities
from tests.oracles.mamba import inside, of_layer
from tests.oracles.s4 import layer_norm


def linear_transformer(
    w: Mapping[str, Tensor], tokens: Tensor, *, n_layers: int, n_heads: int, cutoffs: tuple[int, ...], eps: float
) -> Tensor:
    """Log-probabilities `[B, T, V]` of tokens `[B, T]`; `w` are weights by name."""
    width = w["embed.weight"].shape[1]
    results = []
    for row in tokens:
        h = torch.stack([embedded(w, int(token), cutoffs) for token in row]) * width**0.5
        for i in range(n_layers):
            own = of_layer(w, i)
            mlp = inside(own, "mlp.")
            h = layer_norm(h + attention(inside(own, "mixer."), h, n_heads, eps), inside(own, "mixer_norm."))
            x = (h @ mlp["up_proj.weight"].T + mlp["up_proj.bias"]).clamp(min=0)
            h = layer_norm(h + x @ mlp["down_proj.weight"].T + mlp["down_proj.bias"], inside(own, "mlp_norm."))
        results.append(torch.stack([log_probabilities(w, x, cutoffs) for x in h]))
    return torch.stack(results)


def attention(w: Mapping[str, Tensor], h: Tensor, n_heads: int, eps: float) -> Tensor:
    """One sequence h `[T, d]`; of each head a matrix and a vector are kept."""
    d_head = len(w["q_proj.weight"]) // n_heads
    kept = torch.zeros(n_heads, d_head, d_head, dtype=h.dtype)
    sums = torch.zeros(n_heads, d_head, dtype=h.dtype)
    out = []
    for token in h:
        q, k, v = (w[f"{name}_proj.weight"] @ token for name in "qkv")
        q, k, v = phi(q).view(n_heads, -1), phi(k).view(n_heads, -1), v.view(n_heads, -1)
        kept = kept + k[:, :, None] * v[:, None, :]
        sums = sums + k
        heads = (q[:, :, None] * kept).sum(1) / ((q * sums).sum(1) + eps)[:, None]
        out.append(w["o_proj.weight"] @ heads.flatten())
    return torch.stack(out)


def phi(x: Tensor) -> Tensor:
    return torch.where(x > 0, x + 1, x.clamp(max=0).exp())
