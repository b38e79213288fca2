"""MoE-Mamba, one token at a time: a Mamba layer, then a Switch layer, each behind its norm, and so on.

Pióro et al. 2024, arXiv:2401.04081, section 3.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tests.oracles.mamba import inside, mamba, of_layer, rms
from tests.oracles.switch import switch


def moe_mamba(
    w: Mapping[str, Tensor], tokens: Tensor, n_layers: int, capacity: float | None
) -> tuple[Tensor, list[Tensor]]:
    """Logits `[B, T, V]` of tokens `[B, T]`, and the balance loss of each Switch layer; `w` are weights by name."""
    h = w["embed.weight"][tokens]
    losses = []
    for i in range(n_layers):
        own = of_layer(w, i)
        if i % 2 == 0:
            normed = rms(h, own["mixer_norm.weight"])
            h = h + torch.stack([mamba(inside(own, "mixer."), x) for x in normed])
        else:
            normed = rms(h, own["mlp_norm.weight"])
            experts = own["mlp.experts.up_proj"], own["mlp.experts.down_proj"]
            y, loss = switch(normed.flatten(0, 1), own["mlp.router.weight"], *experts, capacity)
            h = h + y.view_as(h)
            losses.append(loss)
    return rms(h, w["norm.weight"]) @ w["lm_head.weight"].T, losses
