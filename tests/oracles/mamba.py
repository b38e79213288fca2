"""Mamba, one token at a time. Gu & Dao 2023, arXiv:2312.00752, section 3 and algorithm 2."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

EPS = 1e-5


def inside(w: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The weights whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in w.items() if name.startswith(prefix)}


def of_layer(w: Mapping[str, Tensor], i: int) -> dict[str, Tensor]:
    return inside(w, f"layers.{i}.")


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
