"""A penalty on large activations in training (Jamba-1.5, arXiv:2408.12570, where some drifted to millions).

The training loss gains `weight` times the mean square of what every sublayer adds to the residual stream.
"""

from typing import Any

import torch
from torch import nn

from .attach import attach
from .precision import promoted


def penalise(model: nn.Module, weight: float) -> None:
    """Add the penalty to every sublayer of `model`, while it trains: mixers and channel mixers, shared ones too."""

    def hook(module: nn.Module, _arguments: Any, output: Any) -> Any:
        """What the sublayer adds is the last of what it returns."""
        if not (module.training and torch.is_grad_enabled()):
            return None
        *handed_on, delta = output if isinstance(output, tuple) else (output,)
        delta = attach(delta, weight * promoted(delta).square().mean())
        return (*handed_on, delta) if handed_on else delta

    for module in sublayers(model):
        module.register_forward_hook(hook)


def sublayers(model: nn.Module) -> list[nn.Module]:
    """The mixers and channel mixers: the model's own modules that a layer or a shared module holds, and runs."""
    groups = [group for group in model.children() if isinstance(group, nn.ModuleList)]
    held = (module for group in groups for holder in group for module in holder.children())
    own = (module for module in held if type(module).__module__ == type(model).__module__)
    return [module for module in own if type(module).forward is not nn.Module.forward]
