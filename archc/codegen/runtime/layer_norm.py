"""Layer normalisation (Ba et al. 2016, arXiv:1607.06450), computed in at least float32.

    y = (x - mean(x)) rstd weight + bias,    rstd = (var(x) + eps)^(-1/2),    over the last dimension

What runs when: PyTorch's own kernel, on every device.
"""

from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op

from .namespace import NAMESPACE
from .precision import promote


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    """Return y `[..., width]` in the dtype of `weight` `[width]`, for x `[..., width]`; no bias without `bias`."""
    y: Tensor
    y, _, _ = layer_norm_fwd(x, weight, bias, eps)
    return y


@custom_op(f"{NAMESPACE}::layer_norm_fwd", mutates_args=())
def layer_norm_fwd(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return y, the mean and rstd `[..., 1]`."""
    dtype = promote(x.dtype)
    shift = None if bias is None else bias.to(dtype)
    y, mean, rstd = torch.native_layer_norm(x.to(dtype), [x.shape[-1]], weight.to(dtype), shift, eps)
    return y.to(weight.dtype), mean, rstd


@custom_op(f"{NAMESPACE}::layer_norm_bwd", mutates_args=())
def layer_norm_bwd(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, mean: Tensor, rstd: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x, the weight and the bias."""
    dtype = promote(x.dtype)
    scale = weight.to(dtype)
    grad_x, grad_weight, grad_bias = torch.ops.aten.native_layer_norm_backward(
        grad.to(dtype), x.to(dtype), [x.shape[-1]], mean, rstd, scale, torch.zeros_like(scale), [True, True, True]
    )
    return grad_x.to(x.dtype), grad_weight.to(weight.dtype), grad_bias.to(weight.dtype)


@layer_norm_fwd.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    row = x.new_empty(*x.shape[:-1], 1, dtype=promote(x.dtype))
    return x.new_empty(x.shape, dtype=weight.dtype), row, torch.empty_like(row)


@layer_norm_bwd.register_fake
def _(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, mean: Tensor, rstd: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(x.shape), weight.new_empty(weight.shape), weight.new_empty(weight.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:3], *output[1:])


def _backward(ctx: Any, grad: Tensor, _mean: Tensor, _rstd: Tensor) -> tuple[Tensor | None, ...]:
    grad_x, grad_weight, grad_bias = layer_norm_bwd(grad, *ctx.saved_tensors)
    return grad_x, grad_weight, grad_bias if ctx.needs_input_grad[2] else None, None


layer_norm_fwd.register_autograd(_backward, setup_context=_save)
