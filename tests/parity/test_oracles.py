"""Published models that transformers has not: against programs written from their papers, in float64.

The Switch layer and MoE-Mamba stand beside the other mixtures, in `tests/kinds/test_moe.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from tests.models.cases import SHRUNK
from tests.models.packages import Workshop
from tests.oracles.linear_transformer import linear_transformer
from tests.oracles.mamba2attn import mamba2attn
from tests.oracles.s4 import s4_lm
from tests.oracles.samba import samba

torch = pytest.importorskip("torch")

Tensor = torch.Tensor
B, T = 2, 9
EXACT = 1e-9  # float64, relative to the largest number: other orders of a few hundred sums
ORACLES: dict[str, Callable[..., Tensor]] = {
    "linear_transformer_wt103": partial(linear_transformer, n_layers=2, n_heads=8, cutoffs=(7, 13, 22), eps=4e-5),
    "mamba2attn_2_7b": partial(mamba2attn, d_head=4, rotated=2),
    "s4_wt103": partial(s4_lm, n_layers=2, cutoffs=(7, 13, 22)),
    "samba_1_3b": partial(samba, n_layers=4, d_head=4, window=5),
    "samba_1_7b": partial(samba, n_layers=4, d_head=4, window=5),
}


def same(a: Tensor, b: Tensor, what: str, floor: float = 1e-30) -> None:
    error = float((a - b).detach().abs().max() / b.detach().abs().max().clamp(min=floor))
    assert error <= EXACT, f"{what}: max|a-b| / max|b| = {error:.2e}"


@pytest.mark.parametrize("name", ORACLES)
def test_equals_the_papers_program(name: str, workshop: Workshop) -> None:
    """Logits, and the gradients of all parameters."""
    package = workshop(SHRUNK[name])
    model = package.make(torch.float64)
    tokens = torch.randint(package.module().VOCAB, (B, T), generator=torch.Generator().manual_seed(0))
    weights = dict(model.named_parameters())
    logits, want = model(tokens), ORACLES[name](weights, tokens)
    same(logits, want, "logits")
    direction = torch.randn(want.shape, dtype=want.dtype, generator=torch.Generator().manual_seed(1))
    ours, theirs = (torch.autograd.grad(y, [*weights.values()], direction) for y in (logits, want))
    # What is zero but for rounding (softmax does not see a bias of the keys) is compared with the others' size.
    floor = 1e-4 * max(float(grad.abs().max()) for grad in theirs)
    for parameter, a, b in zip(weights, ours, theirs, strict=True):
        same(a, b, parameter, floor)
