"""Routers of mixtures of experts: which experts each token goes to, and with which weights.

Sources: Shazeer et al. 2017, arXiv:1701.06538 (top-k gating); Switch, arXiv:2101.03961 (jitter, capacity); DeepSeek-V2,
arXiv:2405.04434 (groups); DeepSeek-V3, arXiv:2412.19437 (sigmoid scores, a bias that takes part in the choice alone).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .experts import Plan
from .precision import promote

TINY = 1e-20  # keeps a sum of sigmoids that all underflow from dividing by zero, as DeepSeek-V3's code does


def route(
    logits: Tensor,
    top_k: int,
    *,
    scores: str = "softmax",
    renormalise: bool = False,
    select_bias: Tensor | None = None,
    groups: int = 1,
    top_groups: int = 1,
    group_top: int = 2,
    scale: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Each token's k best experts, the best first.

    logits `[..., E]`. Returns weights `[..., k]` in `promote(logits.dtype)` and experts `[..., k]` int64. Weights are
    the scores, a softmax over all experts or a sigmoid of each; `renormalise` makes those of a token sum to one, which
    after a softmax over all is the softmax over the chosen; then comes `scale`.

    "Best" is by score plus `select_bias` `[E]`, which no weight contains. With `groups` of neighbouring experts, only
    experts of the `top_groups` groups can be chosen whose `group_top` best sum to most.
    """
    wide = logits.to(promote(logits.dtype))
    values = wide.sigmoid() if scores == "sigmoid" else wide.softmax(-1)
    choice = values.detach()
    if select_bias is not None:
        choice = choice + select_bias.detach()
    if groups > 1:
        choice = _within_best_groups(choice, groups, top_groups, group_top)
    experts = choice.topk(top_k, dim=-1).indices
    weights = values.gather(-1, experts)
    if renormalise:
        weights = weights / (weights.sum(-1, keepdim=True) + TINY)
    return (weights if scale == 1.0 else weights * scale), experts


def _within_best_groups(choice: Tensor, groups: int, top_groups: int, group_top: int) -> Tensor:
    """choice `[..., E]` with minus infinity for the experts of all but the best groups."""
    grouped = choice.view(*choice.shape[:-1], groups, -1)
    best = grouped.topk(group_top, dim=-1).values.sum(-1).topk(top_groups, dim=-1).indices
    closed = torch.ones(grouped.shape[:-1], dtype=torch.bool, device=choice.device).scatter(-1, best, False)
    return grouped.masked_fill(closed[..., None], float("-inf")).flatten(-2)


def jitter(h: Tensor, amount: float, *, training: bool) -> Tensor:
    """In training, h times independent uniform numbers from `1 - amount` to `1 + amount`; else h."""
    if not training:
        return h
    noise = torch.empty_like(h, dtype=promote(h.dtype)).uniform_(1.0 - amount, 1.0 + amount)
    return (h * noise).to(h.dtype)


def within_capacity(
    weights: Tensor, experts: Tensor, plan: Plan, capacity: tuple[int, int], *, training: bool
) -> Tensor:
    """In training, weights `[B, T, k]` with zeros for what an expert has no room for; else weights.

    Of E experts each has room for `ceil(capacity * B * T * k / E)` of the chosen `experts` `[B, T, k]`, the earliest
    tokens first; `capacity` is a numerator and a denominator, so that the limit is exact. What is left out adds nothing
    to the output and gets no gradient; its row is computed all the same, for shapes are static.
    """
    if not training:
        return weights
    limit = -(-plan.order.shape[0] * capacity[0] // (plan.ends.shape[0] * capacity[1]))
    starts = F.pad(plan.ends, (1, -1))  # [E]: the first row of each expert
    turn = plan.place.view(experts.shape) - starts[experts]  # [B, T, k]: how many came to the expert before
    return weights.masked_fill(turn >= limit, 0.0)
