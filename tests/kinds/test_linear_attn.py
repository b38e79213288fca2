"""Linear attention: against the sum of its paper, and as the recurrence of Mamba-2 without decay."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from archc import compiler
from archc.diagnostics import DiagnosticError, Source
from archc.passes.flops import flops
from archc.passes.workload import Workload
from tests.models.packages import Workshop

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402

from archc.codegen.runtime import reference_ssd  # noqa: E402
from archc.codegen.runtime.linear_attention import normalised, undecayed  # noqa: E402

from .ssds import ssd_of  # noqa: E402

Tensor = torch.Tensor
EXACT = 1e-9  # float64, relative to the largest number: other orders of a few hundred sums
B, T, H, P, G, N = 2, 13, 6, 4, 3, 5
FEATURES = {
    "elu": lambda x: F.elu(x) + 1,
    "relu": F.relu,
    "silu": lambda x: x / (1 + (-x).exp()),
    "softmax": lambda x: x.exp() / x.exp().sum(-1, keepdim=True),
    "none": lambda x: x,
}


def same(a: Tensor, b: Tensor, what: str = "", tolerance: float = EXACT) -> None:
    error = float((a - b).detach().abs().max() / b.detach().abs().max().clamp(min=1e-30))
    assert error <= tolerance, f"{what}: max|a-b| / max|b| = {error:.2e}"


def draw(dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """v, k and q, which want gradients."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(B, T, H, P), (B, T, G, N), (B, T, G, N)]
    return [torch.randn(shape, dtype=dtype, generator=generator).requires_grad_() for shape in shapes]


def steps_of_one(chunk: int = 4) -> Callable[..., Tensor]:
    """`ssd` with the limits that a package of linear attention gives it."""
    ssd: Callable[..., Tensor] = ssd_of(chunk, (1.0, 1.0)).ssd
    return ssd


@pytest.mark.parametrize("chunk", [1, 4, 5, 64])
def test_it_is_the_masked_product(chunk: int) -> None:
    """Outputs and gradients of arXiv:2006.16236, equation (8) without its denominator: (q kᵀ ⊙ L) v."""
    inputs = draw()
    v, k, q = inputs
    got = undecayed(steps_of_one(chunk), v, k, q)
    scores = torch.einsum("btgn,bsgn->bgts", q, k).tril().repeat_interleave(H // G, 1)
    want = torch.einsum("bhts,bshp->bthp", scores, v)
    same(got, want)
    direction = torch.randn_like(want)
    for a, b in zip(*(torch.autograd.grad(y, inputs, direction) for y in (got, want)), strict=True):
        same(a, b)


def test_it_is_mamba2_whose_states_do_not_decay() -> None:
    """Bit by bit what `ssd` gives for A = 0; and its recurrence of steps of one, with a state."""
    v, k, q = (tensor.detach() for tensor in draw())
    zero = torch.zeros(H, dtype=v.dtype)
    y = undecayed(steps_of_one(), v, k, q)
    ones = torch.ones(B, T, H, dtype=v.dtype)
    for dt in (ones * 7, -ones):  # the limits make one of any step
        assert torch.equal(y, steps_of_one()(v, dt, torch.full_like(zero, -torch.inf), k, q, zero, zero))
    want, final = reference_ssd.recurrence(v, ones, zero, k, q, zero)
    same(y, want)
    state = torch.zeros(B, H, P, N, dtype=v.dtype)
    with torch.no_grad():
        pieces = [undecayed(steps_of_one(), v[:, i], k[:, i], q[:, i], state=state) for i in torch.arange(T).split(5)]
    same(torch.cat(pieces, 1), want)
    same(state, final)
    same(state, torch.einsum("bthp,bthn->bhpn", v, k.repeat_interleave(H // G, 2)))


def test_narrower_types() -> None:
    v, k, q = (tensor.detach().bfloat16() for tensor in draw())
    want = undecayed(steps_of_one(), v.double(), k.double(), q.double())
    y = undecayed(steps_of_one(), v, k, q)
    assert y.dtype == torch.bfloat16
    same(y.double(), want, tolerance=2 * torch.finfo(torch.bfloat16).eps)
    assert normalised(y, 1e-6).dtype == torch.bfloat16


@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "as_written"])
@pytest.mark.parametrize("normalise", [True, False], ids=["normalised", "plain"])
@pytest.mark.parametrize("feature", FEATURES)
def test_the_mixer_equals_the_papers_sum(feature: str, normalise: bool, fuse: bool, workshop: Workshop) -> None:
    """A mixer of the package against equation (8), token by token over its own weights, float64."""
    text = f"vocab 9; d_model 12; mlp none; block < linear_attn(3, feature={feature}, normalise={normalise}, bias) >"
    mixer = workshop(text.lower(), fuse=fuse).make(torch.float64).layers[0].mixer
    h = torch.randn(B, T, 12, dtype=torch.float64)
    q, k, v = (getattr(mixer, f"{name}_proj")(h).unflatten(-1, (3, 4)) for name in "qkv")
    q, k = FEATURES[feature](q), FEATURES[feature](k)
    rows = []
    for t in range(T):
        weights = (q[:, t, None] * k[:, : t + 1]).sum(-1)  # [B, t + 1, H]
        row = (weights[..., None] * v[:, : t + 1]).sum(1)
        rows.append(row / (weights.sum(1)[..., None] + 1e-6) if normalise else row)
    want = F.linear(torch.stack(rows, 1).flatten(2), mixer.o_proj.weight)
    with torch.no_grad():
        same(mixer(h), want)


def test_flops() -> None:
    """Four operations for each state, whose last row the normaliser adds; Mamba-2's products in its kernels."""
    head = "vocab 10; d_model 12; mlp none; block <"
    plain = [
        flops(compiler.load(Source("s", f"{head} linear_attn(3, normalise={n}) >")).graph, Workload(7)).total
        for n in ("false", "true")
    ]
    projections = 2 * 4 * 12 * 12 + 2 * 12 * 10
    assert plain[0].model == 7 * (projections + 4 * 3 * 4 * 4)
    assert plain[1].model == 7 * (projections + 4 * 3 * 5 * 4)


def test_heads_divide_the_width() -> None:
    with pytest.raises(DiagnosticError) as raised:
        compiler.load(Source("spec", "vocab 9; d_model 8; mlp none; block < linear_attn(3) >"))
    (found,) = raised.value.diagnostics
    assert (found.code, found.labels[0].span.text) == ("unknown-head-width", "3")
