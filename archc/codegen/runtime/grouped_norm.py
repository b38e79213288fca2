"""RMSNorm in groups of channels (RetNet, arXiv:2307.08621; Zhang & Sennrich 2019, arXiv:1910.07467).

    y = x rstd weight,    rstd = (mean(x^2) + eps)^(-1/2),    the mean over the channels of a group

What runs when: plain torch in `promote(x.dtype)`, on every device.
"""

from typing import Any

from torch import Tensor
from torch.library import custom_op

from .namespace import NAMESPACE
from .precision import promote


def grouped_rms_norm(x: Tensor, weight: Tensor, eps: float, groups: int) -> Tensor:
    """Return y `[..., width]` in the dtype of `weight` `[width]`: `groups` equal groups, each by itself."""
    y: Tensor
    y, _ = grouped_rms_norm_fwd(x, weight, eps, groups)
    return y


@custom_op(f"{NAMESPACE}::grouped_rms_norm_fwd", mutates_args=())
def grouped_rms_norm_fwd(x: Tensor, weight: Tensor, eps: float, groups: int) -> tuple[Tensor, Tensor]:
    """Return y, and rstd `[..., groups]`."""
    dtype = promote(x.dtype)
    wide = x.to(dtype).reshape(*x.shape[:-1], groups, -1)
    rstd = (wide.square().mean(-1) + eps).rsqrt()
    return ((wide * rstd.unsqueeze(-1)).flatten(-2) * weight.to(dtype)).to(weight.dtype), rstd


@custom_op(f"{NAMESPACE}::grouped_rms_norm_bwd", mutates_args=())
def grouped_rms_norm_bwd(grad: Tensor, x: Tensor, weight: Tensor, rstd: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of x and the weight."""
    dtype, groups = promote(x.dtype), rstd.shape[-1]
    normal = x.to(dtype).reshape(*x.shape[:-1], groups, -1) * rstd.unsqueeze(-1)
    grad = grad.to(dtype)
    grad_weight = (grad * normal.flatten(-2)).flatten(0, -2).sum(0)
    scaled = (grad * weight.to(dtype)).reshape(normal.shape)
    grad_x = (scaled - normal * (scaled * normal).mean(-1, keepdim=True)) * rstd.unsqueeze(-1)
    return grad_x.flatten(-2).to(x.dtype), grad_weight.to(weight.dtype)


@grouped_rms_norm_fwd.register_fake
def _(x: Tensor, weight: Tensor, eps: float, groups: int) -> tuple[Tensor, Tensor]:
    rstd = x.new_empty(*x.shape[:-1], groups, dtype=promote(x.dtype))
    return x.new_empty(x.shape, dtype=weight.dtype), rstd


@grouped_rms_norm_bwd.register_fake
def _(grad: Tensor, x: Tensor, weight: Tensor, rstd: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), weight.new_empty(weight.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:2], output[1])


def _backward(ctx: Any, grad: Tensor, _rstd: Tensor) -> tuple[Tensor | None, ...]:
    return *grouped_rms_norm_bwd(grad, *ctx.saved_tensors), None, None


grouped_rms_norm_fwd.register_autograd(_backward, setup_context=_save)
