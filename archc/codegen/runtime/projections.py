"""Several projections of one value as one matrix product, while every weight keeps its own name and Parameter.

`fused_linear(h, q_proj, k_proj, v_proj)` multiplies once by the stacked weights. A `Packed` module lays those weights
out next to each other in one storage, each Parameter being a slice of it, and then stacking them is free: a view.
state_dict, optimizers, initialisation and checkpoints see nothing but the separate weights.

Weights that are not adjacent (sharded ones that were just gathered, or a weight that somebody replaced) are
concatenated for the call instead, with the same result. Biases are added to each projection separately.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import register_flop_formula

from .namespace import NAMESPACE
from .recompute import keep_results


def fused_linear(h: Tensor, *linears: nn.Linear) -> tuple[Tensor, ...]:
    """What each of `linears` makes of h `[..., d]`: one `[..., d_out]` each, views of one result.

    Float operations: 2 * tokens * d * d_out forward for every projection, twice that backward.
    """
    weights = [linear.weight for linear in linears]
    fused: Tensor = fused_linear_fwd(h, weights)  # [..., sum of d_out]
    outputs = fused.split_with_sizes([weight.shape[0] for weight in weights], dim=-1)
    return tuple(y if linear.bias is None else y + linear.bias for y, linear in zip(outputs, linears, strict=True))


class Packed(nn.Module):
    """A module that keeps groups of its linears' weights adjacent in memory.

    A subclass names the groups and calls `pack()` once its linears exist:

        packs = (("q_proj", "k_proj", "v_proj"),)

    Moving, casting, `to_empty`, `load_state_dict(assign=True)` and deepcopy pack again.
    """

    packs: tuple[tuple[str, ...], ...] = ()

    def __init__(self) -> None:
        super().__init__()
        register: Any = self.register_load_state_dict_post_hook  # torch leaves it untyped
        register(_pack_loaded)

    def pack(self) -> None:
        """Lay the weights of each group out in one storage. The Parameters stay the same objects."""
        for names in self.packs:
            pack_([self.get_submodule(name).get_parameter("weight") for name in names])

    def _apply(self, fn: Any, recurse: bool = True) -> "Packed":
        module: Any = super()
        module._apply(fn, recurse)
        self.pack()
        return self

    def __setstate__(self, state: dict[str, Any]) -> None:
        module: Any = super()
        module.__setstate__(state)
        self.pack()


def pack_(weights: Sequence[nn.Parameter]) -> None:
    """Move the weights `[d_out_i, d]` into one storage, in order.

    Leaves them alone if they are so already, if they differ in dtype or device, and if they are sharded tensors.
    """
    first = weights[0]
    alike = all(type(w.data) is Tensor and w.dtype == first.dtype and w.device == first.device for w in weights)
    if not alike or _are_adjacent(weights):
        return
    packed = torch.cat([weight.data for weight in weights])
    for weight, part in zip(weights, packed.split_with_sizes([weight.shape[0] for weight in weights]), strict=True):
        weight.data = part


def _pack_loaded(module: nn.Module, _incompatible_keys: object) -> None:
    assert isinstance(module, Packed)
    module.pack()


def _are_adjacent(weights: Sequence[Tensor]) -> bool:
    storage = weights[0].untyped_storage().data_ptr()
    end = weights[0].data_ptr()
    for weight in weights:
        if weight.untyped_storage().data_ptr() != storage or weight.data_ptr() != end or not weight.is_contiguous():
            return False
        end += weight.nbytes
    return True


def _stack(weights: Sequence[Tensor]) -> Tensor:
    """The weights below one another, `[sum of d_out, d]`: a view if they are adjacent, else a copy."""
    if not _are_adjacent(weights):
        return torch.cat(list(weights))
    rows, d = sum(weight.shape[0] for weight in weights), weights[0].shape[1]
    return weights[0].as_strided((rows, d), (d, 1))


@torch.library.custom_op(f"{NAMESPACE}::fused_linear_fwd", mutates_args=())
def fused_linear_fwd(h: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """`[..., d]` times weights `[d_out_i, d]`: `[..., sum of d_out]`."""
    stacked = _stack(weights)
    return torch.mm(h.reshape(-1, h.shape[-1]), stacked.t()).view(*h.shape[:-1], stacked.shape[0])


@torch.library.custom_op(f"{NAMESPACE}::fused_linear_bwd", mutates_args=())
def fused_linear_bwd(grad: Tensor, h: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Gradients of h `[..., d]` and of the stacked weights `[sum of d_out, d]`."""
    grad = grad.reshape(-1, grad.shape[-1])
    grad_h = torch.mm(grad, _stack(weights)).view(h.shape)
    return grad_h, torch.mm(grad.t(), h.reshape(-1, h.shape[-1]))


@fused_linear_fwd.register_fake
def _(h: Tensor, weights: Sequence[Tensor]) -> Tensor:
    return h.new_empty(*h.shape[:-1], sum(weight.shape[0] for weight in weights))


@fused_linear_bwd.register_fake
def _(grad: Tensor, h: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    return h.new_empty(h.shape), h.new_empty(grad.shape[-1], h.shape[-1])


def _save(ctx: Any, inputs: tuple[Tensor, Sequence[Tensor]], output: Tensor) -> None:
    h, weights = inputs
    ctx.save_for_backward(h, *weights)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, list[Tensor]]:
    h, *weights = ctx.saved_tensors
    grad_h, grad_stacked = fused_linear_bwd(grad, h, weights)
    return grad_h, list(grad_stacked.split_with_sizes([weight.shape[0] for weight in weights]))


fused_linear_fwd.register_autograd(_backward, setup_context=_save)
keep_results(getattr(torch.ops, NAMESPACE).fused_linear_fwd)


def flops(h_shape: Sequence[int], weight_shapes: Sequence[Sequence[int]]) -> int:
    """Float operations of the forward product, a multiply-add being two."""
    tokens = 1
    for size in h_shape[:-1]:
        tokens *= size
    return sum(2 * tokens * d_out * d for d_out, d in weight_shapes)


@register_flop_formula(getattr(torch.ops, NAMESPACE).fused_linear_fwd)
def _forward_flops(h_shape: Any, weight_shapes: Any, *_: Any, **__: Any) -> int:
    return flops(h_shape, weight_shapes)


@register_flop_formula(getattr(torch.ops, NAMESPACE).fused_linear_bwd)
def _backward_flops(_grad_shape: Any, h_shape: Any, weight_shapes: Any, *_: Any, **__: Any) -> int:
    return 2 * flops(h_shape, weight_shapes)
