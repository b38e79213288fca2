"""Parts of a product that backward needs without the rest of it."""

import torch
from torch import Tensor


def apart(x: Tensor) -> Tensor:
    """A copy of x while gradients are recorded, so that what x is a part of need not be kept; else x itself."""
    return x.clone() if torch.is_grad_enabled() else x
