"""The penalty on activations: its gradient is that of the loss with the mean squares added by hand."""

from __future__ import annotations

from typing import Any

import pytest

from tests.models.packages import Workshop

torch = pytest.importorskip("torch")

WEIGHT = 0.3
TEXT = """model penalised
vocab 17
d_model 8
mlp moe(expert=swiglu(6), shared=relu(5)) top1/3
share g(out=linear) = attn gqa(2,1) + gelu(7)
block x2 < mamba(d_state=3), attn gqa(2,2), attn gqa(4,2) kv=prev d_head=4, g >
"""


@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
def test_the_gradient_is_that_of_the_sum(recompute: str, workshop: Workshop) -> None:
    package = workshop(TEXT)
    ours, plain = (package.make(seed=4).train() for _ in range(2))
    penalty = package.module("penalty")
    squares: list[Any] = []
    named = {name for name, module in plain.named_modules() if module in penalty.sublayers(plain)}
    assert named == {f"layers.{i}.{part}" for i in (0, 1, 2, 4, 5, 6) for part in ("mixer", "mlp")} | {
        "g.0.mixer",
        "g.0.mlp",
    }
    for module in penalty.sublayers(plain):
        module.register_forward_hook(
            lambda _m, _a, out: squares.append((out[-1] if isinstance(out, tuple) else out).square().mean())
        )
    penalty.penalise(ours, WEIGHT)
    ours.recompute = recompute
    tokens = torch.randint(17, (2, 9), generator=torch.Generator().manual_seed(2))
    (ours(tokens).square().mean()).backward()
    (plain(tokens).square().mean() + WEIGHT * sum(squares)).backward()
    for (name, mine), theirs in zip(ours.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-10, atol=1e-14, msg=name)  # float64, other order


def test_evaluation_is_untouched(workshop: Workshop) -> None:
    package = workshop(TEXT)
    ours, plain = package.make(seed=4), package.make(seed=4)
    package.module("penalty").penalise(ours, WEIGHT)
    tokens = torch.arange(9)[None]
    assert torch.equal(ours(tokens), plain(tokens))
