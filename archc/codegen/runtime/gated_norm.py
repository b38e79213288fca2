"""The gated norm of Mamba-2: RMSNorm in groups of channels, beside a SiLU gate (Dao & Gu 2024, arXiv:2405.21060).

What runs when: plain torch in `promote(y.dtype)`, on every device. Only inputs are saved; backward derives the rest.
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torch.library import custom_op

from .namespace import NAMESPACE
from .precision import promote


def gated_rms_norm(
    y: Tensor, z: Tensor, weight: Tensor, eps: float, *, groups: int = 1, norm_before_gate: bool = False
) -> Tensor:
    """norm(y * silu(z)) * weight, or norm(y) * weight * silu(z): y and z `[..., D]`, weight `[D]`, in weight's dtype.

    Each of `groups` equal groups of channels is divided by its own root mean square.
    """
    out: Tensor = gated_rms_norm_fwd(y, z, weight, eps, groups, norm_before_gate)
    return out


@custom_op(f"{NAMESPACE}::gated_rms_norm_fwd", mutates_args=())
def gated_rms_norm_fwd(y: Tensor, z: Tensor, weight: Tensor, eps: float, groups: int, norm_before_gate: bool) -> Tensor:
    """The result `[..., D]`."""
    dtype = promote(y.dtype)
    value, gate = y.to(dtype), F.silu(z.to(dtype))
    if norm_before_gate:
        return (_normed(value, eps, groups)[0] * weight.to(dtype) * gate).to(weight.dtype)
    return (_normed(value * gate, eps, groups)[0] * weight.to(dtype)).to(weight.dtype)


@custom_op(f"{NAMESPACE}::gated_rms_norm_bwd", mutates_args=())
def gated_rms_norm_bwd(
    grad: Tensor, y: Tensor, z: Tensor, weight: Tensor, eps: float, groups: int, norm_before_gate: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of y, z and weight."""
    dtype = promote(y.dtype)
    value, raw, scale, grad = y.to(dtype), z.to(dtype), weight.to(dtype), grad.to(dtype)
    sigmoid = raw.sigmoid()
    gate = raw * sigmoid
    normed, inverse = _normed(value if norm_before_gate else value * gate, eps, groups)
    gated = grad * gate if norm_before_gate else grad
    grad_value = _norm_backward(gated * scale, normed, inverse, groups)
    if norm_before_gate:
        grad_gate = grad * normed * scale
    else:
        grad_value, grad_gate = grad_value * gate, grad_value * value
    grad_z = grad_gate * sigmoid * (1 + raw * (1 - sigmoid))
    grad_weight = (gated * normed).flatten(0, -2).sum(0)
    return grad_value.to(y.dtype), grad_z.to(z.dtype), grad_weight.to(weight.dtype)


def _normed(x: Tensor, eps: float, groups: int) -> tuple[Tensor, Tensor]:
    """x over the root mean square of its group, `[..., D]`, and one over that, `[..., groups, 1]`."""
    grouped = x.reshape(*x.shape[:-1], groups, -1)
    inverse = (grouped.square().mean(-1, keepdim=True) + eps).rsqrt()
    return (grouped * inverse).flatten(-2), inverse


def _norm_backward(grad: Tensor, normed: Tensor, inverse: Tensor, groups: int) -> Tensor:
    grad, normed = (x.reshape(*x.shape[:-1], groups, -1) for x in (grad, normed))
    return ((grad - normed * (grad * normed).mean(-1, keepdim=True)) * inverse).flatten(-2)


@gated_rms_norm_fwd.register_fake
def _(y: Tensor, z: Tensor, weight: Tensor, eps: float, groups: int, norm_before_gate: bool) -> Tensor:
    return y.new_empty(y.shape, dtype=weight.dtype)


@gated_rms_norm_bwd.register_fake
def _(
    grad: Tensor, y: Tensor, z: Tensor, weight: Tensor, eps: float, groups: int, norm_before_gate: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return y.new_empty(y.shape), z.new_empty(z.shape), weight.new_empty(weight.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:3])
    ctx.options = inputs[3:]


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return *gated_rms_norm_bwd(grad, *ctx.saved_tensors, *ctx.options), None, None, None


gated_rms_norm_fwd.register_autograd(_backward, setup_context=_save)
