"""Random inputs of each family, as the models give them: slices of fused projections, packed documents, states."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .variants import CONVS, SCANS

BATCH = 2


def positions_of(batch: int, length: int) -> Tensor:
    """Documents of random lengths, the first of which may have begun before."""
    lengths = torch.randint(1, max(2, length // 2), (batch, length))
    rows = []
    for row in lengths.tolist():
        first = int(torch.randint(0, 5, ()))
        positions = [*range(first, first + row[0])]
        for n in row[1:]:
            positions += range(n)
        rows.append(positions[:length])
    return torch.tensor(rows)


def scan_inputs(name: str, length: int, d_inner: int, dtype: torch.dtype, batch: int = BATCH) -> dict[str, Tensor]:
    view = SCANS[name]
    n = view.d_state
    x, z = torch.randn(batch, length, 2 * d_inner, dtype=dtype).split(d_inner, -1)
    _, B, C = torch.randn(batch, length, 3 + 2 * n, dtype=dtype).split((3, n, n), -1)
    dt = torch.randn(batch, length, d_inner, dtype=dtype)
    inputs = {
        "x": x,
        "dt": dt - 1 if view.dt_softplus else dt.abs() * 0.3,
        "A_log": torch.rand(d_inner, n, dtype=dtype) * 2,
        "B": B,
        "C": C,
        "D": torch.randn(d_inner, dtype=dtype),
        "z": z,
        "dt_bias": torch.rand(d_inner, dtype=dtype) * 0.5,
    }
    return {key: inputs[key] for key in view.inputs}


def conv_inputs(name: str, length: int, channels: int, dtype: torch.dtype, batch: int = BATCH) -> dict[str, Tensor]:
    view = CONVS[name]
    inputs = {
        "x": torch.randn(batch, length, 2 * channels, dtype=dtype)[..., :channels],
        "weight": torch.randn(channels, 1, view.width, dtype=dtype),
        "bias": torch.randn(channels, dtype=dtype),
    }
    return {key: inputs[key] for key in view.inputs}


def error(actual: Tensor, expected: Tensor) -> float:
    """max|a - b| / max|b|, NaN counted as an error."""
    if actual.numel() == 0:
        return 0.0
    difference = (actual.double() - expected.double()).abs().max().item()
    scale = expected.double().abs().max().item()
    return float("inf") if difference != difference else difference / (scale or 1.0)


def gradients(
    run: Callable[..., Any], inputs: dict[str, Tensor | None], seed: int = 0
) -> tuple[list[Tensor], list[Tensor]]:
    """What `run(**inputs)` returns, and the gradients of the floating-point inputs for random output gradients."""
    leaves = {
        key: value.detach().requires_grad_() if value is not None and value.is_floating_point() else value
        for key, value in inputs.items()
    }
    returned = run(**leaves)
    outputs = [returned] if isinstance(returned, Tensor) else list(returned)
    generator = torch.Generator().manual_seed(seed)
    grads = [
        torch.randn(output.shape, generator=generator, dtype=torch.float64).to(output.device, output.dtype)
        for output in outputs
    ]
    wanted = [leaf for leaf in leaves.values() if leaf is not None and leaf.requires_grad]
    return outputs, list(torch.autograd.grad(outputs, wanted, grads))


def doubled(inputs: dict[str, Tensor | None]) -> dict[str, Tensor | None]:
    return {
        key: value.double() if value is not None and value.is_floating_point() else value
        for key, value in inputs.items()
    }
