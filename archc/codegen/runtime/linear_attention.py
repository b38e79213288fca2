"""Attention without a softmax (Katharopoulos et al. 2020, arXiv:2006.16236) as Mamba-2's recurrence without decay."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from .precision import promote, promoted


def undecayed(ssd: Callable[..., Tensor], v: Tensor, k: Tensor, q: Tensor, **options: Any) -> Tensor:
    """`y[t] = sum_{s <= t} (q[t] · k[s]) v[s]`, by an `ssd` with A = 0, D = 0 and steps that `options` limit to one.

    Args:
        v: `[B, T, H, P]`.
        k: `[B, T, G, N]`; head i has group i // (H / G).
        q: `[B, T, G, N]`.
    """
    zero = v.new_zeros(v.shape[2], dtype=promote(v.dtype))
    return ssd(v, v.new_zeros(v.shape[:3]), zero.log(), k, q, zero, zero, **options)


def normalised(y: Tensor, eps: float) -> Tensor:
    """All channels of y but the last, divided by `eps` more than the last."""
    wide = promoted(y)
    return (wide[..., :-1] / (wide[..., -1:] + eps)).to(y.dtype)
