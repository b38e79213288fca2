"""The precision policy: what a dtype is computed in, and how a model is cast.

Parameters have one dtype except for a few that the model names (`Model.keep_fp32()`), such as A_log. Sums, softmaxes
and states are computed in `promote(dtype)`, so that a float64 model is float64 throughout.
"""

import torch
from torch import Tensor, nn

from .projections import Packed


def promote(dtype: torch.dtype) -> torch.dtype:
    """The dtype that values of `dtype` are computed in: float32, or float64 for float64."""
    return torch.promote_types(dtype, torch.float32)


def promoted(t: Tensor) -> Tensor:
    """`t` in the dtype that it is computed in."""
    return t.to(promote(t.dtype))


def cast_(model: nn.Module, dtype: torch.dtype, keep_fp32: set[str]) -> None:
    """Cast the parameters of `model` to `dtype`, except whole numbers, those named in `keep_fp32` to `promote(dtype)`.

    The Parameter objects stay the same, so tied weights stay tied; of the names of a tied weight any one keeps it.
    Raises ValueError for a name that is no parameter. Call it before there are gradients.
    """
    named = list(model.named_parameters(remove_duplicate=False))
    if unknown := keep_fp32 - {name for name, _ in named}:
        raise ValueError(f"no such parameters: {', '.join(sorted(unknown))}")
    kept = {id(parameter) for name, parameter in named if name in keep_fp32}
    for parameter in filter(torch.is_floating_point, model.parameters()):
        parameter.data = parameter.data.to(promote(dtype) if id(parameter) in kept else dtype)
    for module in model.modules():
        if isinstance(module, Packed):
            module.pack()
