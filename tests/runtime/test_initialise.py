"""Initialisation: the papers' statistics, generators, sharded tensors; and casting to a precision."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from archc.codegen.runtime.initialise import A_log_, dt_bias_, dt_weight_, normal_, ones_, zeros_
from archc.codegen.runtime.precision import cast_, promote

DRAWS: list[Callable[..., None]] = [
    lambda t, g=None: normal_(t, 0.02, g),
    lambda t, g=None: dt_bias_(t, generator=g),
    lambda t, g=None: dt_weight_(t, 16, g),
]


def test_a_log_rows() -> None:
    t = nn.Parameter(torch.empty(5, 16))
    A_log_(t)
    assert torch.equal(t.data, torch.arange(1.0, 17).log().expand(5, 16))
    half = torch.empty(2, 300, dtype=torch.bfloat16)
    A_log_(half)
    assert torch.equal(half, torch.arange(1.0, 301).log().bfloat16().expand(2, 300))


def test_dt_bias_is_log_uniform_after_softplus() -> None:
    t = nn.Parameter(torch.empty(20000))
    dt_bias_(t)
    dt = F.softplus(t.detach().double())
    # float32 bias: softplus of it returns dt to about 1e-6 relative
    assert dt.min() >= 1e-3 * (1 - 1e-5)
    assert dt.max() <= 1e-1 * (1 + 1e-5)
    quantiles = dt.log().quantile(torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64))
    want = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64) * math.log(100) + math.log(1e-3)
    # 20000 draws: quantiles have a standard error of 0.5 * log(100) / sqrt(20000) = 0.016
    assert (quantiles - want).abs().max() < 0.08
    dt_bias_(t, dt_min=1e-9, dt_max=2e-9)
    torch.testing.assert_close(F.softplus(t.detach()), torch.full((20000,), 1e-4), rtol=1e-4, atol=0.0)  # the floor


def test_bounds_and_deviations() -> None:
    t = torch.empty(400, 64)
    dt_weight_(t, dt_rank=16)
    assert t.abs().max() <= 0.25
    assert abs(float(t.std()) - 0.25 / math.sqrt(3)) < 0.005  # 25600 draws: standard error 0.0006
    normal_(t, 0.02)
    assert abs(float(t.std()) - 0.02) < 0.0005  # standard error 0.0001
    ones_(t)
    assert bool((t == 1).all())
    zeros_(t)
    assert not t.any()


@pytest.mark.parametrize("draw", DRAWS)
def test_generator_decides(draw: Callable[..., None]) -> None:
    first, second = torch.empty(64), torch.empty(64)
    for t in (first, second):
        draw(t, torch.Generator().manual_seed(3))
    assert torch.equal(first, second)
    draw(second)
    assert not torch.equal(first, second)


@pytest.mark.filterwarnings("ignore:DTensor random operators")
def test_sharded_tensors(tmp_path: Path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        for fill in (A_log_, ones_, zeros_, *DRAWS):
            t = distribute_tensor(torch.full((8, 16), torch.nan), mesh, [Shard(0)])
            fill(t)
            assert isinstance(t, DTensor)
            assert bool(t.to_local().isfinite().all())
    finally:
        torch.distributed.destroy_process_group()


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(6, 4)
        self.head = nn.Linear(4, 6, bias=False)
        self.head.weight = self.embed.weight
        self.A_log = nn.Parameter(torch.randn(4))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_cast_keeps_named_parameters_wide_and_ties_tied(dtype: torch.dtype) -> None:
    model = Tied()
    weight, before = model.embed.weight, model.A_log.clone()
    cast_(model, dtype, {"A_log"})
    assert model.head.weight is model.embed.weight is weight
    assert weight.dtype == dtype
    assert model.A_log.dtype == promote(dtype)
    assert torch.equal(model.A_log, before.to(promote(dtype)))


def test_cast_knows_every_name_of_a_tied_weight() -> None:
    model = Tied()
    cast_(model, torch.bfloat16, {"head.weight"})
    assert model.embed.weight.dtype == torch.float32
    with pytest.raises(ValueError, match="no such parameters: A"):
        cast_(model, torch.bfloat16, {"A"})


def test_promote() -> None:
    assert promote(torch.float16) == promote(torch.bfloat16) == promote(torch.float32) == torch.float32
    assert promote(torch.float64) == torch.float64


def test_parameters_stay_leaves() -> None:
    t: Tensor = nn.Parameter(torch.empty(4, 4))
    for fill in (A_log_, ones_, zeros_, *DRAWS):
        fill(t)
    assert t.is_leaf
    assert t.requires_grad
