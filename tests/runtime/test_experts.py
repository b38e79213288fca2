"""Mixture of experts: against one token at a time and against transformers."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import JambaConfig, MixtralConfig
from transformers.models.jamba.modeling_jamba import JambaSparseMoeBlock
from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock

from archc.codegen.runtime import experts as experts_module
from archc.codegen.runtime.experts import combine, dispatch, expert_linear, flops
from archc.codegen.runtime.routing import route

EXACT = {"rtol": 0.0, "atol": 1e-10}  # float64: rounding of a few hundred sums of numbers near 1
B, T, D, FF, E, TOP = 2, 9, 8, 6, 5, 2


def mixture(h: Tensor, router: Tensor, gate: Tensor, up: Tensor, down: Tensor, top_k: int, renormalise: bool) -> Tensor:
    weights, experts = route(F.linear(h, router), top_k, renormalise=renormalise)
    rows, plan = dispatch(h, experts, len(gate))
    rows = F.silu(expert_linear(rows, gate, plan)) * expert_linear(rows, up, plan)
    return combine(expert_linear(rows, down, plan), weights, plan)


def naive(h: Tensor, router: Tensor, gate: Tensor, up: Tensor, down: Tensor, top_k: int, renormalise: bool) -> Tensor:
    out = []
    for token in h.flatten(0, -2):
        p = (router @ token).softmax(0)
        chosen = p.argsort(descending=True)[:top_k]
        share = p[chosen].sum() if renormalise else 1.0
        out.append(sum(p[e] / share * (down[e] @ (F.silu(gate[e] @ token) * (up[e] @ token))) for e in chosen))
    return torch.stack(out).view(h.shape)


def draw(dtype: torch.dtype = torch.float64, n_experts: int = E, scale: float = 1.0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = [(B, T, D), (n_experts, D), (n_experts, FF, D), (n_experts, FF, D), (n_experts, D, FF)]
    return [(torch.randn(s, dtype=dtype, generator=generator) * scale).requires_grad_() for s in shapes]


@pytest.mark.parametrize("renormalise", [False, True])
@pytest.mark.parametrize(("top_k", "n_experts"), [(1, 5), (2, 5), (3, 3), (2, 64)])
def test_equals_one_token_at_a_time(top_k: int, n_experts: int, renormalise: bool) -> None:
    """With 64 experts most of them get no row."""
    args = draw(n_experts=n_experts)
    grad = torch.randn(B, T, D, dtype=torch.float64)
    results = []
    for fn in (mixture, naive):
        y = fn(*args, top_k, renormalise)
        results.append([y, *torch.autograd.grad(y, args, grad)])
    for got, want in zip(*results, strict=True):
        torch.testing.assert_close(got, want, **EXACT)


def test_rows_are_grouped_and_in_token_order() -> None:
    h = torch.arange(6.0).view(1, 6, 1)
    experts = torch.tensor([[[2, 0], [2, 3], [0, 2], [3, 2], [2, 0], [0, 3]]])
    rows, plan = dispatch(h, experts, 5)
    assert plan.ends.tolist() == [4, 4, 9, 12, 12]
    assert rows.flatten().tolist() == [0, 2, 4, 5, 0, 1, 2, 3, 4, 1, 3, 5]
    assert torch.equal(plan.order[plan.place.flatten()], torch.arange(12))


def test_documents_do_not_mix() -> None:
    """No token is dropped for another one, so a batch is the same as its rows."""
    h, *weights = draw()
    whole = mixture(h, *weights, TOP, False)
    parts = [mixture(h[b : b + 1, t : t + 3], *weights, TOP, False) for b in range(B) for t in range(0, T, 3)]
    torch.testing.assert_close(torch.cat(parts, 1).view(whole.shape), whole, **EXACT)


def test_gradients() -> None:
    h, router, *weights = draw(scale=0.5)
    assert torch.autograd.gradcheck(lambda *w: mixture(h, router, *w, TOP, False), weights)
    # The choice of experts jumps; the weights given to a fixed choice do not.
    _, experts = route(F.linear(h, router), TOP)
    rows, plan = dispatch(h, experts, E)
    shares = torch.rand(B, T, TOP, dtype=torch.float64, requires_grad=True)
    leaf = rows.detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda r, s: combine(r, s, plan), (leaf, shares))
    assert torch.autograd.gradcheck(lambda x: dispatch(x, experts, E)[0], (h,))


@pytest.mark.parametrize(
    ("block", "config", "renormalise"),
    [
        (JambaSparseMoeBlock, JambaConfig(hidden_size=16, intermediate_size=24, num_experts=6), False),
        (MixtralSparseMoeBlock, MixtralConfig(hidden_size=16, intermediate_size=24, num_local_experts=6), True),
    ],
)
def test_equals_transformers(block: Callable[..., nn.Module], config: object, renormalise: bool) -> None:
    torch.manual_seed(0)
    theirs = block(config)
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.5)
    named = dict(theirs.named_parameters())
    router = next(p for name, p in named.items() if name.startswith(("router", "gate")))
    gate, up = named["experts.gate_up_proj"].chunk(2, 1)
    down = named["experts.down_proj"]
    h = torch.randn(2, 30, 16, requires_grad=True)
    grad = torch.randn(2, 30, 16)
    results = []
    for y in (mixture(h, router, gate, up, down, 2, renormalise), theirs(h)):
        results.append([y, *torch.autograd.grad(y, (h, *named.values()), grad)])
    for got, want in zip(*results, strict=True):
        # float32: the experts' outputs are added in another order
        assert (got - want).abs().max() <= 1e-5 * want.abs().max()


def test_low_precision_adds_in_float32() -> None:
    h, *weights = draw(torch.bfloat16, scale=0.5)
    y = mixture(h, *weights, TOP, False)
    assert y.dtype == torch.bfloat16
    assert route(F.linear(h, weights[0]), TOP)[0].dtype == torch.float32
    # bfloat16: the router's logits and three products are rounded to 8 bits
    want = mixture(*(x.double() for x in (h, *weights)), TOP, False)
    assert (y - want).abs().max() <= 5e-2 * want.abs().max()


def grouped_mm(a: Tensor, b: Tensor, *, offs: Tensor) -> Tensor:
    """What torch's grouped_mm does, and what its CUDA kernel demands of layouts and empty groups."""
    assert offs.dtype == torch.int32
    starts = [0, *offs.tolist()[:-1]]
    groups = list(zip(starts, offs.tolist(), strict=True))
    if b.dim() == 3:
        assert a.is_contiguous()
        return torch.cat([a[s:e] @ b[i] for i, (s, e) in enumerate(groups)])
    assert a.t().is_contiguous()
    assert b.is_contiguous()
    return torch.stack([a[:, s:e] @ b[s:e] for s, e in groups])


def test_calls_of_the_cuda_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    args = draw(n_experts=12)
    results = []
    for _ in range(2):
        y = mixture(*args, TOP, False)
        results.append([y, *torch.autograd.grad(y.sum(), args)])
        monkeypatch.setattr(experts_module, "_is_grouped", lambda rows, weight: True)
        monkeypatch.setattr(F, "grouped_mm", grouped_mm)
    for loop, grouped in zip(*results, strict=True):
        torch.testing.assert_close(grouped, loop, **EXACT)


def test_ops_obey_torch() -> None:
    h, router, gate, *_ = draw()
    weights, experts = route(F.linear(h, router), TOP)
    rows, plan = dispatch(h, experts, E)
    rows, weights = rows.detach().requires_grad_(), weights.detach().view(-1, TOP).requires_grad_()
    tokens = h.detach().view(-1, D).requires_grad_()
    out = torch.randn(B * T * TOP, FF, dtype=torch.float64)
    check = torch.library.opcheck
    check(experts_module.dispatch_fwd, (tokens, plan.order, plan.place))
    check(experts_module.dispatch_bwd, (rows.detach(), plan.place))
    check(experts_module.combine_fwd, (rows, weights, plan.order, plan.place))
    check(experts_module.combine_bwd, (tokens.detach(), rows.detach(), weights.detach(), plan.order, plan.place))
    check(experts_module.grouped_linear_fwd, (rows, gate, plan.ends))
    check(experts_module.grouped_linear_bwd, (out, rows.detach(), gate.detach(), plan.ends))


def test_compiles_whole() -> None:
    args = draw()
    compiled = torch.compile(lambda *a: mixture(*a, TOP, True), fullgraph=True, backend="aot_eager")
    results = []
    for fn in (lambda *a: mixture(*a, TOP, True), compiled):
        y = fn(*args)
        results.append([y, *torch.autograd.grad(y.square().sum(), args)])
    for got, want in zip(*results, strict=True):
        torch.testing.assert_close(got, want, **EXACT)


def test_flops_equal_the_count_of_one_token_at_a_time() -> None:
    h, router, *weights = draw()
    rows, plan = dispatch(h, route(F.linear(h, router), TOP)[1], E)
    rows = rows.detach().requires_grad_()

    def looped() -> Tensor:
        starts = [0, *plan.ends.tolist()[:-1]]
        groups = zip(starts, plan.ends.tolist(), weights[0], strict=True)
        return torch.cat([rows[start:end] @ w.t() for start, end, w in groups])

    def count(run: Callable[[], object]) -> int:
        with FlopCounterMode(display=False) as counter:
            run()
        return counter.get_total_flops()

    assert count(lambda: expert_linear(rows, weights[0], plan)) == count(looped) == flops(B * T * TOP, D, FF)
    both = count(lambda: expert_linear(rows, weights[0], plan).sum().backward())
    assert both == count(lambda: looped().sum().backward()) == 3 * flops(B * T * TOP, D, FF)
