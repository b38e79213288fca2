"""MoE-Mamba, one token at a time: a Mamba layer, then a Switch layer, each behind its norm, and so on.

Pióro et al. 2024, arXiv:2401.04081, section 3; Mamba as in Gu & Dao 2023, arXiv:2312.00752, section 3 and algorithm 2.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tests.oracles.switch import switch

EPS = 1e-5


def moe_mamba(
    w: Mapping[str, Tensor], tokens: Tensor, n_layers: int, capacity: float | None
) -> tuple[Tensor, list[Tensor]]:
    """Logits `[B, T, V]` of tokens `[B, T]`, and the balance loss of each Switch layer; `w` are weights by name."""
    h = w["embed.weight"][tokens]
    losses = []
    for i in range(n_layers):
        own = {name.removeprefix(f"layers.{i}."): t for name, t in w.items() if name.startswith(f"layers.{i}.")}
        if i % 2 == 0:
            normed = rms(h, own["mixer_norm.weight"])
            h = h + torch.stack([mamba({k.removeprefix("mixer."): t for k, t in own.items()}, x) for x in normed])
        else:
            normed = rms(h, own["mlp_norm.weight"])
            experts = own["mlp.experts.up_proj"], own["mlp.experts.down_proj"]
            y, loss = switch(normed.flatten(0, 1), own["mlp.router.weight"], *experts, capacity)
            h = h + y.view_as(h)
            losses.append(loss)
    return rms(h, w["norm.weight"]) @ w["lm_head.weight"].T, losses


def rms(x: Tensor, weight: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + EPS).sqrt() * weight


def silu(x: Tensor) -> Tensor:
    return x / (1 + (-x).exp())


def mamba(w: Mapping[str, Tensor], h: Tensor) -> Tensor:
    """One sequence h `[T, d]`."""
    A = -w["A_log"].exp()
    d_inner, d_state = A.shape
    dt_rank = w["dt_proj.weight"].shape[1]
    filters = w["conv1d.weight"][:, 0]  # [d_inner, K]
    past = [torch.zeros(d_inner, dtype=h.dtype)] * (filters.shape[1] - 1)
    state = torch.zeros_like(A)
    out = []
    for token in h:
        x, z = (w["in_proj.weight"] @ token).split(d_inner)
        past = [*past, x][-filters.shape[1] :]
        x = silu((torch.stack(past, 1) * filters).sum(1) + w["conv1d.bias"])
        low, B, C = (w["x_proj.weight"] @ x).split([dt_rank, d_state, d_state])
        dt = (1 + (w["dt_proj.weight"] @ low + w["dt_proj.bias"]).exp()).log()
        state = (dt[:, None] * A).exp() * state + (dt * x)[:, None] * B
        out.append(w["out_proj.weight"] @ (((state * C).sum(1) + w["D"] * x) * silu(z)))
    return torch.stack(out)
