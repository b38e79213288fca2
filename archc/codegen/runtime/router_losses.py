"""Losses of routers, added to the training loss where they arise: in the backward pass, so that no state is kept.

Sources: Switch, arXiv:2101.03961 (load balance); ST-MoE, arXiv:2202.08906 (z-loss); DeepSeek-V3, arXiv:2412.19437 (the
balance of sigmoid scores, and a bias of the choice that follows the load).

`with_losses` hands the router's weights on as they are. In backward it acts as if the training loss had the router's
losses among its terms, for every layer, under compilation and recomputation. A pass whose loss is but a part of an
update's, as with gradient accumulation, says so in `loss.SHARE`.
"""

import torch
from torch import Tensor

from .attach import attach
from .experts import Plan
from .precision import promote

STEERING = 1e-3  # of the gradient of select_bias: AdamW does not see it, and clipping shall not either


def with_losses(
    weights: Tensor,
    logits: Tensor,
    plan: Plan,
    *,
    balance: float = 0.0,
    z_loss: float = 0.0,
    scores: str = "softmax",
    select_bias: Tensor | None = None,
    training: bool,
) -> Tensor:
    """weights `[B, T, k]`, unchanged; in training, their backward brings the gradients of the losses of the router.

    logits `[B, T, E]`; `balance` and `z_loss` weigh their losses. The gradient of `select_bias` `[E]` is the excess of
    each expert's load over the mean load, so that an optimizer lowers the bias of an expert that is chosen too often.
    """
    if not training:
        return weights
    loss = torch.zeros((), dtype=promote(logits.dtype), device=logits.device)
    if balance:
        loss = loss + balance * balance_loss(logits, plan, scores=scores)
    if z_loss:
        loss = loss + z_loss * router_z_loss(logits)
    if select_bias is not None:
        excess = load(plan, loss.dtype) - 1 / plan.ends.shape[0]
        loss = loss + STEERING * (select_bias * excess).sum()
    return attach(weights, loss)


def load(plan: Plan, dtype: torch.dtype) -> Tensor:
    """`[E]`: the share of all rows that each expert got, before any are dropped."""
    return plan.ends.diff(prepend=plan.ends.new_zeros(1)).to(dtype) / plan.order.shape[0]


def balance_loss(logits: Tensor, plan: Plan, *, scores: str = "softmax") -> Tensor:
    """`E * sum_i f_i P_i` over all tokens: 1 if all experts get the same, up to E if one gets everything.

    f is each expert's share of the rows and has no gradient; P is the mean over tokens of its score, sigmoids being
    divided by their sum over the experts.
    """
    wide = logits.flatten(0, -2).to(promote(logits.dtype))  # [N, E]
    if scores == "sigmoid":
        wide = wide.sigmoid()
        probabilities = wide / wide.sum(-1, keepdim=True)
    else:
        probabilities = wide.softmax(-1)
    return logits.shape[-1] * (load(plan, wide.dtype) * probabilities.mean(0)).sum()


def router_z_loss(logits: Tensor) -> Tensor:
    """The mean over all tokens of the squared logarithm of the softmax's denominator: keeps logits small."""
    return logits.to(promote(logits.dtype)).logsumexp(-1).square().mean()
