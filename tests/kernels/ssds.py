"""Variants of Mamba-2's recurrence, and random inputs as the models give them: slices of one projection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from archc.codegen.kernels.ssd import Ssd

if TYPE_CHECKING:
    import torch
    from torch import Tensor

CHUNK = 24  # of the plain form


def variant(
    name: str, n_heads: int, d_head: int, n_groups: int, d_state: int, low: str = "0.0", high: str = "inf"
) -> Ssd:
    return Ssd(
        name=name,
        n_heads=n_heads,
        d_head=d_head,
        n_groups=n_groups,
        d_state=d_state,
        chunk=CHUNK,
        dt_min=low,
        dt_max=high,
    )


SSDS = {
    view.name: view
    for view in (
        variant("ssd", 4, 64, 2, 64),
        variant("ssd_n128", 2, 64, 1, 128, "0.05", "1.5"),
        variant("ssd_wide", 2, 128, 1, 128),
        variant("ssd_plain", 3, 24, 1, 20),
    )
}


@dataclass(frozen=True)
class Case:
    """What a run of a variant is given."""

    batch: int
    length: int
    packed: bool
    stateful: bool


def ssd_inputs(view: Ssd, case: Case, dtype: torch.dtype) -> dict[str, Tensor | None]:
    """Arguments of the forward operator, by name."""
    import torch

    from .inputs import positions_of

    H, P, G, N = view.n_heads, view.d_head, view.n_groups, view.d_state
    joined = torch.randn(case.batch, case.length, H * P + 2 * G * N + 16, dtype=dtype)
    x, B, C, _ = joined.split((H * P, G * N, G * N, 16), -1)
    return {
        "x": x.unflatten(-1, (H, P)),
        "dt": torch.randn(case.batch, case.length, H + 1, dtype=dtype)[..., :H] - 1,
        "A_log": torch.rand(H) * 2,
        "B": B.unflatten(-1, (G, N)),
        "C": C.unflatten(-1, (G, N)),
        "D": torch.randn(H),
        "dt_bias": torch.rand(H) * 0.5,
        "positions": positions_of(case.batch, case.length) if case.packed else None,
        "initial": torch.randn(case.batch, H, P, N) if case.stateful else None,
    }
