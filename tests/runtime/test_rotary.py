"""RoPE: against transformers, and that only distances matter."""

import pytest
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

from archc.codegen.runtime.rotary import rope

EXACT = {"rtol": 0.0, "atol": 1e-10}  # float64: angles up to a few thousand are exact to 1e-12


@pytest.mark.parametrize(("theta", "K"), [(1e4, 16), (5e5, 128)])
def test_equals_transformers(theta: float, K: int) -> None:
    config = LlamaConfig(head_dim=K, rope_parameters={"rope_type": "default", "rope_theta": theta})
    x = torch.randn(2, 3, 50, K)
    positions = torch.randint(0, 8000, (2, 50))
    cos, sin = LlamaRotaryEmbedding(config)(x, positions)
    want, _ = apply_rotary_pos_emb(x, x, cos, sin)
    got = rope(x.transpose(1, 2), positions, theta=theta).transpose(1, 2)
    # float32, the same tables: two products and a sum
    torch.testing.assert_close(got, want, rtol=0.0, atol=1e-6)


def test_default_positions_count_from_zero() -> None:
    x = torch.randn(2, 7, 3, 8)
    assert torch.equal(rope(x, None, theta=1e4), rope(x, torch.arange(7).expand(2, 7), theta=1e4))


def test_only_distances_matter() -> None:
    q, k = torch.randn(2, 1, 5, 2, 16, dtype=torch.float64)
    positions = torch.arange(5)[None]

    def scores(shift: int) -> torch.Tensor:
        turned = [rope(x, positions + shift, theta=1e4) for x in (q, k)]
        return torch.einsum("bthk,bshk->bhts", *turned)

    torch.testing.assert_close(scores(1000), scores(0), **EXACT)


def test_partial_dims() -> None:
    x = torch.randn(1, 4, 2, 12, dtype=torch.float64)
    got = rope(x, None, theta=1e4, dims=8)
    assert torch.equal(got[..., 8:], x[..., 8:])
    assert torch.equal(got[..., :8], rope(x[..., :8], None, theta=1e4))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_keeps_the_dtype_and_computes_in_a_wider_one(dtype: torch.dtype) -> None:
    x = torch.randn(1, 300, 1, 8, dtype=dtype)
    got = rope(x, None, theta=1e4)
    assert got.dtype == dtype
    # one rounding of the result; float32 angles up to 300 are good to 300 * 2^-24
    tolerance = {torch.bfloat16: 2**-8, torch.float32: 5e-5, torch.float64: 1e-12}[dtype]
    torch.testing.assert_close(got.double(), rope(x.double(), None, theta=1e4), rtol=tolerance, atol=tolerance)


def test_gradient_and_compilation() -> None:
    x = torch.randn(1, 3, 2, 6, dtype=torch.float64, requires_grad=True)
    positions = torch.tensor([[0, 1, 0]])
    assert torch.autograd.gradcheck(lambda x: rope(x, positions, theta=1e4, dims=4), (x,))
    compiled = torch.compile(lambda x, p: rope(x, p, theta=1e4), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, positions), rope(x, positions, theta=1e4), **EXACT)
