"""The Switch layer, one token at a time. Fedus et al. 2021, arXiv:2101.03961, section 2; MoE-Mamba, arXiv:2401.04081.

Equations (1) and (2): p = softmax(W_r x), y = p_i(x) E_i(x) for the most probable expert i. Equation (3): an expert
takes tokens / experts * capacity factor of them; those that find it full are passed on unchanged by the residual, so
the layer gives zero. Equations (4) to (6): the balance loss is N * sum_i f_i P_i.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def switch(h: Tensor, router: Tensor, up: Tensor, down: Tensor, capacity: float | None) -> tuple[Tensor, Tensor]:
    """The output for tokens h `[N, d]`, in their order, and the balance loss.

    Weights: router `[E, d]`; experts without a gate, up `[E, d_ff, d]` and down `[E, d, d_ff]`, a ReLU between them.
    """
    n_experts = len(router)
    room = len(h) if capacity is None else math.ceil(len(h) / n_experts * capacity)
    taken = [0] * n_experts
    chosen = [0] * n_experts
    mean = torch.zeros(n_experts, dtype=h.dtype)
    out = []
    for x in h:
        logits = router @ x
        p = torch.exp(logits - logits.max())
        p = p / p.sum()
        mean = mean + p / len(h)
        i = int(p.argmax())
        chosen[i] += 1
        if taken[i] < room:
            taken[i] += 1
            out.append(p[i] * (down[i] @ (up[i] @ x).clamp(min=0)))
        else:
            out.append(torch.zeros_like(x))
    fractions = torch.tensor(chosen, dtype=h.dtype) / len(h)
    return torch.stack(out), n_experts * (fractions * mean).sum()
