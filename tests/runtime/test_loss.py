"""The training loss."""

import pytest
import torch

from archc.codegen.runtime.loss import cross_entropy


def test_equals_the_definition() -> None:
    logits = torch.randn(2, 5, 11, dtype=torch.float64)
    targets = torch.randint(0, 11, (2, 5))
    targets[0, 1] = targets[1, 4] = -100
    picked = [-logits[b, t].log_softmax(-1)[targets[b, t]] for b in range(2) for t in range(5) if targets[b, t] >= 0]
    # float64: a dozen sums
    torch.testing.assert_close(cross_entropy(logits, targets), torch.stack(picked).mean(), rtol=0.0, atol=1e-12)


def test_gradient_is_zero_where_ignored() -> None:
    logits = torch.randn(1, 4, 7, dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([[3, -100, 0, -100]])
    assert torch.autograd.gradcheck(lambda x: cross_entropy(x, targets), (logits,))
    cross_entropy(logits, targets).backward()
    assert logits.grad is not None
    assert not logits.grad[0, 1].any()


def test_nothing_to_train_on_is_zero() -> None:
    logits = torch.randn(1, 4, 7, requires_grad=True)
    loss = cross_entropy(logits, torch.full((1, 4), -100))
    loss.backward()
    assert loss == 0
    assert logits.grad is not None
    assert not logits.grad.any()


@pytest.mark.parametrize(("dtype", "computed"), [(torch.bfloat16, torch.float32), (torch.float64, torch.float64)])
def test_computed_in_the_promoted_dtype(dtype: torch.dtype, computed: torch.dtype) -> None:
    logits, targets = torch.randn(3, 9, dtype=dtype), torch.tensor([1, 2, 3])
    assert cross_entropy(logits, targets).dtype == computed
    compiled = torch.compile(cross_entropy, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(logits, targets), cross_entropy(logits, targets))
