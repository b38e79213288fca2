"""S4's language model, one token at a time: two S4 layers, then an MLP, each behind its LayerNorm, and so on.

Gu et al. 2021, arXiv:2111.00396, appendix D; the state space is diagonal, Gu et al. 2022, arXiv:2206.11893, section 4:
x' = A x + u, y = 2 Re(C x) + D u over one of each conjugate pair, held over a step (ZOH). Behind it GELU and a linear
map to twice the width, of which one half is gated by the other. Input and output are adaptive.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from tests.oracles.adaptive import embedded, log_probabilities
from tests.oracles.mamba import inside, of_layer


def s4_lm(w: Mapping[str, Tensor], tokens: Tensor, *, n_layers: int, cutoffs: tuple[int, ...]) -> Tensor:
    """Log-probabilities `[B, T, V]` of tokens `[B, T]`; `w` are weights by name."""
    width = w["embed.weight"].shape[1]
    sequences = [torch.stack([embedded(w, int(token), cutoffs) for token in row]) * width**0.5 for row in tokens]
    results = []
    for h in sequences:
        for i in range(n_layers):
            own = of_layer(w, i)
            for name in ("mixer", "mixer_2"):
                h = h + s4(inside(own, f"{name}."), layer_norm(h, inside(own, f"{name}_norm.")))
            mlp = inside(own, "mlp.")
            x = gelu(layer_norm(h, inside(own, "mlp_norm.")) @ mlp["up_proj.weight"].T + mlp["up_proj.bias"])
            h = h + x @ mlp["down_proj.weight"].T + mlp["down_proj.bias"]
        h = layer_norm(h, inside(w, "norm."))
        results.append(torch.stack([log_probabilities(w, x, cutoffs) for x in h]))
    return torch.stack(results)


def s4(w: Mapping[str, Tensor], h: Tensor) -> Tensor:
    """One sequence h `[T, d]`."""
    A = torch.complex(-w["A_log"].exp(), w["A_imag"])  # [d, N / 2]
    step = w["log_dt"].exp()[:, None]
    decay = (step * A).exp()
    held = (decay - 1) / A
    C = torch.complex(w["C"][..., 0], w["C"][..., 1])
    state = torch.zeros_like(A)
    out = []
    for u in h:
        state = decay * state + held * u[:, None]
        y = gelu((C * state + (C * state).conj()).sum(1).real + w["D"] * u)
        a, b = (w["out_proj.weight"] @ y + w["out_proj.bias"]).chunk(2)
        out.append(a / (1 + (-b).exp()))
    return torch.stack(out)


def gelu(x: Tensor) -> Tensor:
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def layer_norm(x: Tensor, w: Mapping[str, Tensor]) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * w["weight"] + w["bias"]
