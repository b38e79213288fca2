"""Losses that arise inside the model, added to the training loss in the backward pass, so that no state is kept.

A value is handed on as it is, and its backward acts as if the training loss had the attached loss among its terms: in
every layer, under compilation and recomputation. A pass whose loss is but a part of an update's, as with gradient
accumulation, says so in `loss.SHARE`.
"""

from typing import Any

import torch
from torch import Tensor

from .loss import SHARE
from .namespace import NAMESPACE


def attach(value: Tensor, loss: Tensor) -> Tensor:
    """`value`, whose backward gives `loss` `[]` the gradient of the training loss's own terms."""
    out: Tensor = attach_fwd(value, loss * SHARE.to(loss))
    return out


@torch.library.custom_op(f"{NAMESPACE}::attach_fwd", mutates_args=())
def attach_fwd(value: Tensor, loss: Tensor) -> Tensor:
    """value, whose backward gives loss `[]` the gradient one."""
    return value.clone()


@attach_fwd.register_fake
def _(value: Tensor, loss: Tensor) -> Tensor:
    return torch.empty_like(value)


def _save_type(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.dtype = inputs[1].dtype


def _attach_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
    return grad, grad.new_ones((), dtype=ctx.dtype)


attach_fwd.register_autograd(_attach_backward, setup_context=_save_type)
