"""The training loss."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .precision import promote

IGNORED = -100
"""The target of a token that is not trained on."""

SHARE = torch.ones((), dtype=torch.float64, device="cpu")
"""How much of an update's loss the current pass makes up: the weight of losses that arise inside the model."""


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean negative log likelihood, in nats, over the targets that are not `IGNORED`; 0 if there are none.

    logits `[..., V]`, targets `[...]` int64. A scalar in `promote(logits.dtype)`.
    """
    logits = logits.flatten(0, -2).to(promote(logits.dtype))  # [N, V]
    targets = targets.flatten()  # [N]
    total = F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")
    return total / torch.count_nonzero(targets != IGNORED).clamp(min=1)
