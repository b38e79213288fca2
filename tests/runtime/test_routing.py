"""Routers: against one token at a time in plain Python; the losses that they add in backward; biases of experts."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from archc.codegen.runtime import attach, expert_bias, router_losses
from archc.codegen.runtime.expert_bias import add_expert_bias
from archc.codegen.runtime.experts import Plan, dispatch
from archc.codegen.runtime.loss import SHARE
from archc.codegen.runtime.router_losses import balance_loss, router_z_loss, with_losses
from archc.codegen.runtime.routing import jitter, route, within_capacity

B, T, E = 2, 7, 12
EXACT = {"rtol": 1e-12, "atol": 1e-14}  # float64: rounding of a few dozen sums


def draw(*shape: int, scale: float = 1.5) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, dtype=torch.float64, generator=generator) * scale


def planned(logits: Tensor, top_k: int) -> tuple[Tensor, Tensor, Plan]:
    weights, experts = route(logits, top_k)
    _, plan = dispatch(torch.zeros(*logits.shape[:-1], 1, dtype=logits.dtype), experts, logits.shape[-1])
    return weights, experts, plan


# --- the choice ------------------------------------------------------------------------------------


def chosen(logits: list[float], top_k: int, bias: list[float], **fields: object) -> dict[int, float]:
    """Expert and weight of one token."""
    n = len(logits)
    if fields.get("scores") == "sigmoid":
        scores = [1 / (1 + math.exp(-x)) for x in logits]
    else:
        scores = [math.exp(x) / sum(map(math.exp, logits)) for x in logits]
    seen = [score + extra for score, extra in zip(scores, bias, strict=True)]
    groups, width = int(str(fields.get("groups", 1))), n // int(str(fields.get("groups", 1)))
    if groups > 1:
        best = int(str(fields["group_top"]))
        of_group = [sum(sorted(seen[g * width : (g + 1) * width])[-best:]) for g in range(groups)]
        open_groups = sorted(range(groups), key=lambda g: of_group[g])[-int(str(fields["top_groups"])) :]
        allowed = [e for e in range(n) if e // width in open_groups]
    else:
        allowed = list(range(n))
    best_experts = sorted(allowed, key=lambda e: seen[e])[-top_k:]
    total = sum(scores[e] for e in best_experts) if fields.get("renormalise") else 1.0
    return {e: scores[e] / total * float(str(fields.get("scale", 1.0))) for e in best_experts}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"renormalise": True},
        {"scores": "sigmoid"},
        {"scores": "sigmoid", "renormalise": True, "scale": 2.5},
        {"groups": 4, "top_groups": 2, "group_top": 2},
        {"groups": 3, "top_groups": 1, "group_top": 1, "renormalise": True},
        {"scores": "sigmoid", "renormalise": True, "groups": 6, "top_groups": 3, "group_top": 2, "scale": 0.5},
    ],
    ids=str,
)
@pytest.mark.parametrize("biased", [False, True], ids=["", "select_bias"])
@pytest.mark.parametrize("top_k", [1, 3])
def test_equals_one_token_at_a_time(fields: dict[str, object], biased: bool, top_k: int) -> None:
    logits = draw(B, T, E)
    bias = draw(E, scale=0.3) if biased else torch.zeros(E, dtype=torch.float64)
    weights, experts = route(logits, top_k, select_bias=bias if biased else None, **fields)  # type: ignore[arg-type]
    for b in range(B):
        for t in range(T):
            want = chosen(logits[b, t].tolist(), top_k, bias.tolist(), **fields)
            got = dict(zip(experts[b, t].tolist(), weights[b, t].tolist(), strict=True))
            assert got.keys() == want.keys()
            assert got == pytest.approx(want, rel=1e-12)


def test_renormalised_softmax_is_the_softmax_over_the_chosen() -> None:
    logits = draw(B, T, E).requires_grad_()
    weights, experts = route(logits, 3, renormalise=True)
    over_chosen = logits.gather(-1, experts).softmax(-1)
    torch.testing.assert_close(weights, over_chosen, **EXACT)
    probe = draw(B, T, 3)
    grads = [torch.autograd.grad((w * probe).sum(), logits)[0] for w in (weights, over_chosen)]
    torch.testing.assert_close(*grads, **EXACT)


def test_scores_are_wide_and_survive_extremes() -> None:
    logits = torch.full((1, 1, E), -200.0, dtype=torch.bfloat16)  # every sigmoid underflows in float32
    weights, _ = route(logits, 2, scores="sigmoid", renormalise=True)
    assert weights.dtype == torch.float32
    assert weights.isfinite().all()


def test_a_selection_bias_gets_no_gradient_from_the_weights() -> None:
    bias = torch.zeros(E, dtype=torch.float64, requires_grad=True)
    weights, _ = route(draw(B, T, E).requires_grad_(), 2, select_bias=bias)
    (grad,) = torch.autograd.grad(weights.sum(), bias, allow_unused=True)
    assert grad is None


# --- jitter and capacity ---------------------------------------------------------------------------


def test_jitter_is_noise_of_training_alone() -> None:
    h = draw(B, T, 5)
    assert jitter(h, 0.1, training=False) is h
    torch.manual_seed(0)
    ratio = jitter(h, 0.1, training=True) / h
    assert 0.9 <= float(ratio.min()) < 0.95
    assert 1.05 < float(ratio.max()) <= 1.1


@pytest.mark.parametrize("capacity", [(1, 1), (5, 4), (1, 3), (11, 10), (12, 1)])
@pytest.mark.parametrize("top_k", [1, 2])
def test_full_experts_drop_the_latest_tokens(capacity: tuple[int, int], top_k: int) -> None:
    weights, experts, plan = planned(draw(B, T, 4), top_k)
    kept = within_capacity(weights, experts, plan, capacity, training=True)
    assert within_capacity(weights, experts, plan, capacity, training=False) is weights
    room = math.ceil(capacity[0] * B * T * top_k / (capacity[1] * 4))
    taken = [0] * 4
    for token, (of_token, got, before) in enumerate(
        zip(experts.view(-1, top_k), kept.view(-1, top_k), weights.view(-1, top_k), strict=True)
    ):
        for choice, expert in enumerate(of_token.tolist()):
            want = float(before[choice]) if taken[expert] < room else 0.0
            assert float(got[choice]) == want, (token, expert)
            taken[expert] += 1
    assert (kept == 0).any() == (max(taken) > room)


def test_the_limit_is_exact() -> None:
    """1.1 times 100 tokens over 10 experts is room for 11, which floats miss by a hair."""
    experts = torch.zeros(1, 100, 1, dtype=torch.int64)
    _, plan = dispatch(torch.zeros(1, 100, 1), experts, 10)
    kept = within_capacity(torch.ones(1, 100, 1), experts, plan, (11, 10), training=True)
    assert kept.flatten().tolist() == [1.0] * 11 + [0.0] * 89


# --- losses ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("top_k", [1, 3])
def test_balance_and_z_loss_are_the_papers(top_k: int) -> None:
    logits = draw(B, T, E)
    _, experts, plan = planned(logits, top_k)
    rows = logits.view(-1, E).tolist()
    f, p, z = [0.0] * E, [0.0] * E, 0.0
    for row, of_token in zip(rows, experts.view(-1, top_k).tolist(), strict=True):
        total = sum(map(math.exp, row))
        z += math.log(total) ** 2 / len(rows)
        for e in range(E):
            p[e] += math.exp(row[e]) / total / len(rows)
            f[e] += of_token.count(e) / len(rows) / top_k
    assert float(balance_loss(logits, plan)) == pytest.approx(E * sum(x * y for x, y in zip(f, p, strict=True)))
    assert float(router_z_loss(logits)) == pytest.approx(z)


def test_even_loads_have_a_balance_of_one() -> None:
    logits = 9 * torch.eye(4, dtype=torch.float64).repeat(3, 1)[None]
    for scores in ("softmax", "sigmoid"):
        assert float(balance_loss(logits, planned(logits, 1)[2], scores=scores)) == pytest.approx(1.0)
    one = torch.tensor([30.0, 0, 0, 0], dtype=torch.float64).expand(1, 8, 4)
    assert float(balance_loss(one, planned(one, 1)[2])) == pytest.approx(4.0)


def as_terms(logits: Tensor, bias: Tensor, share: float) -> Tensor:
    """What a model with one router computes, plus the losses of the router as plain terms."""
    weights, experts, plan = planned(logits, 2)
    excess = torch.bincount(experts.flatten(), minlength=E).double() / experts.numel() - 1 / E
    losses = 0.01 * balance_loss(logits, plan) + 0.001 * router_z_loss(logits)
    losses = losses + router_losses.STEERING * (bias * excess).sum()
    return weights.square().sum() + share * losses


def as_attached(logits: Tensor, bias: Tensor) -> Tensor:
    weights, _, plan = planned(logits, 2)
    weights = with_losses(weights, logits, plan, balance=0.01, z_loss=0.001, select_bias=bias, training=True)
    return weights.square().sum()


def recomputed(logits: Tensor, bias: Tensor) -> Tensor:
    out: Tensor = checkpoint(as_attached, logits, bias, use_reentrant=False)
    return out


@pytest.fixture
def share():
    """Sets what the passes of a test make up of an update."""
    yield SHARE.fill_
    SHARE.fill_(1.0)


@torch._dynamo.config.patch(error_on_recompile=True)
def test_losses_are_added_in_backward(share: Callable[[float], object]) -> None:
    """Directly, recomputed and compiled; as much of them as the pass makes up of an update, without recompiling."""
    torch._dynamo.reset()
    compiled = torch.compile(as_attached, fullgraph=True, backend="aot_eager")
    for part in (1.0, 0.25):
        share(part)
        for run in (as_attached, recomputed, compiled):
            leaves = draw(B, T, E).requires_grad_(), draw(E, scale=0.2).requires_grad_()
            value, want = run(*leaves), as_terms(*leaves, part)
            torch.testing.assert_close(value, planned(leaves[0], 2)[0].square().sum(), **EXACT)
            grads, wanted = (torch.autograd.grad(y, leaves) for y in (value, want))
            for got, expected in zip(grads, wanted, strict=True):
                torch.testing.assert_close(got, expected, **EXACT)


def test_no_losses_in_evaluation() -> None:
    logits = draw(B, T, E).requires_grad_()
    weights, _, plan = planned(logits, 2)
    assert with_losses(weights, logits, plan, balance=1.0, training=False) is weights


def test_steering_lowers_the_bias_of_the_crowded() -> None:
    """A router that loves one expert: moved by the sign of its gradient, the bias spreads the load."""
    logits = draw(1, 400, 4, scale=0.3) + torch.tensor([2.0, 0.5, 0.0, -0.5], dtype=torch.float64)
    bias = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    loads = []
    for _ in range(300):
        weights, experts = route(logits.requires_grad_(), 1, scores="sigmoid", select_bias=bias)
        _, plan = dispatch(torch.zeros(1, 400, 1), experts, 4)
        out = with_losses(weights, logits, plan, scores="sigmoid", select_bias=bias, training=True)
        (grad,) = torch.autograd.grad(out.sum(), bias)
        loads.append(router_losses.load(plan, torch.float64))
        with torch.no_grad():
            bias -= 0.005 * grad.sign()
    assert float(loads[0].max()) > 0.9
    assert float(loads[-1].max()) < 0.35


# --- biases of experts -----------------------------------------------------------------------------


@pytest.mark.parametrize("n_experts", [3, 40])
def test_rows_get_the_bias_of_their_expert(n_experts: int) -> None:
    logits, bias = draw(B, T, n_experts), draw(n_experts, 5).requires_grad_()
    _, experts = route(logits, 2)
    rows, plan = dispatch(draw(B, T, 5), experts, n_experts)
    leaf = rows.detach().requires_grad_()
    of_row = experts.flatten()[plan.order]
    probe = draw(*rows.shape)
    got, want = add_expert_bias(leaf, bias, plan), leaf + bias[of_row]
    assert torch.equal(got, want)
    for ours, theirs in zip(*(torch.autograd.grad((y * probe).sum(), (leaf, bias)) for y in (got, want)), strict=True):
        torch.testing.assert_close(ours, theirs, **EXACT)


def test_ops_obey_torch() -> None:
    weights, _, plan = planned(draw(B, T, E), 2)
    rows, bias = draw(B * T * 2, 3).requires_grad_(), draw(E, 3).requires_grad_()
    check = torch.library.opcheck
    check(attach.attach_fwd, (weights.detach().requires_grad_(), draw(1)[0].requires_grad_()))
    check(expert_bias.add_bias_fwd, (rows, bias, plan.ends))
    check(expert_bias.add_bias_bwd, (rows.detach(), plan.ends))
