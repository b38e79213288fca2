"""Biases of experts: to each row that of its expert.

The gradient of a bias is the sum of its expert's rows, added up one expert at a time, so that it does not depend on the
order in which threads finish.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .experts import Plan
from .namespace import NAMESPACE
from .precision import promote


def add_expert_bias(rows: Tensor, bias: Tensor, plan: Plan) -> Tensor:
    """rows `[R, d]`, grouped by expert, and bias `[E, d]` -> `[R, d]`."""
    out: Tensor = add_bias_fwd(rows, bias, plan.ends)
    return out


@torch.library.custom_op(f"{NAMESPACE}::add_expert_bias_fwd", mutates_args=())
def add_bias_fwd(rows: Tensor, bias: Tensor, ends: Tensor) -> Tensor:
    """rows `[R, d]`, bias `[E, d]`, ends `[E]` -> `[R, d]`."""
    numbers = torch.arange(rows.shape[0], dtype=ends.dtype, device=ends.device)
    return rows + bias.index_select(0, torch.searchsorted(ends, numbers, right=True)).to(rows.dtype)


@torch.library.custom_op(f"{NAMESPACE}::add_expert_bias_bwd", mutates_args=())
def add_bias_bwd(grad: Tensor, ends: Tensor) -> Tensor:
    """The sum of each expert's rows, `[R, d]` -> `[E, d]`, in `promote(grad.dtype)`."""
    offsets = F.pad(ends, (1, 0)).long()
    return torch.segment_reduce(grad.to(promote(grad.dtype)).contiguous(), "sum", offsets=offsets, unsafe=True)


@add_bias_fwd.register_fake
def _(rows: Tensor, bias: Tensor, ends: Tensor) -> Tensor:
    return rows.new_empty(rows.shape)


@add_bias_bwd.register_fake
def _(grad: Tensor, ends: Tensor) -> Tensor:
    return grad.new_empty(ends.shape[0], grad.shape[1], dtype=promote(grad.dtype))


def _save(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(inputs[2])
    ctx.dtype = inputs[1].dtype


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
    return grad, add_bias_bwd(grad, *ctx.saved_tensors).to(ctx.dtype), None


add_bias_fwd.register_autograd(_backward, setup_context=_save)
