"""Mixture of experts: group rows by expert, multiply each group, put back. Nothing is dropped; routing.py chooses.

Source: Gale et al. 2022, arXiv:2211.15841 (dropless, grouped).

Shapes are static and nothing waits for a GPU: a row is a (token, choice) pair, N tokens with k choices always make
N * k rows, and only the bounds of the groups depend on the data. Rows are moved by gathers in both directions, so that
results and gradients do not depend on the order in which threads finish.

The grouped products run as follows. CUDA bfloat16 with both widths divisible by 8: torch's grouped_mm (one kernel on
compute capability 9 and 10; on others torch itself loops over the experts). Everything else: a loop over the experts,
one matrix product each, which on CUDA waits for the group bounds.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from .namespace import NAMESPACE
from .precision import promote
from .recompute import keep_results


class Plan(NamedTuple):
    """Where the rows of a dispatch come from and where they belong."""

    order: Tensor  # [N * k] int64: the (token, choice) pair that each row holds
    place: Tensor  # [N, k] int64: the row that holds each pair; the inverse of order
    ends: Tensor  # [E] int32: one past the last row of each expert


def dispatch(h: Tensor, experts: Tensor, n_experts: int) -> tuple[Tensor, Plan]:
    """Copies of the tokens h `[B, T, d]`, one for each of `experts` `[B, T, k]`: rows `[B * T * k, d]`.

    Rows of one expert are together, in token order.
    """
    chosen = experts.flatten()
    order = torch.argsort(chosen, stable=True)
    place = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
    labels = torch.arange(n_experts, device=chosen.device)
    ends = torch.searchsorted(chosen[order], labels, right=True, out_int32=True)
    plan = Plan(order, place.view(-1, experts.shape[-1]), ends)
    rows: Tensor = dispatch_fwd(h.reshape(-1, h.shape[-1]), plan.order, plan.place)
    return rows, plan


def expert_linear(rows: Tensor, weight: Tensor, plan: Plan) -> Tensor:
    """Each row times the transpose of its expert's matrix: `[R, d_in]`, weight `[E, d_out, d_in]` -> `[R, d_out]`."""
    out: Tensor = grouped_linear_fwd(rows, weight, plan.ends)
    return out


def combine(rows: Tensor, weights: Tensor, plan: Plan) -> Tensor:
    """Each token's rows, weighted and added: rows `[B * T * k, d]`, weights `[B, T, k]` -> `[B, T, d]`.

    Added in `promote(rows.dtype)` in the order of the choices; the result has rows' dtype.
    """
    out: Tensor = combine_fwd(rows, weights.reshape(plan.place.shape), plan.order, plan.place)
    return out.view(*weights.shape[:-1], rows.shape[-1])


def flops(n_rows: int, d_in: int, d_out: int) -> int:
    """Float operations of `expert_linear` forward, a multiply-add being two; backward takes twice as many."""
    return 2 * n_rows * d_in * d_out


# Moving rows. Copying a token to its rows and adding a token's rows up are each other's transpose.


@torch.library.custom_op(f"{NAMESPACE}::dispatch_fwd", mutates_args=())
def dispatch_fwd(tokens: Tensor, order: Tensor, place: Tensor) -> Tensor:
    """tokens `[N, d]` -> rows `[N * k, d]`."""
    return tokens.index_select(0, order // place.shape[1])


@torch.library.custom_op(f"{NAMESPACE}::dispatch_bwd", mutates_args=())
def dispatch_bwd(grad_rows: Tensor, place: Tensor) -> Tensor:
    """The sum of each token's rows, `[N * k, d]` -> `[N, d]`."""
    total = grad_rows.index_select(0, place[:, 0]).to(promote(grad_rows.dtype))
    for choice in place.unbind(1)[1:]:
        total += grad_rows.index_select(0, choice)
    return total.to(grad_rows.dtype)


@torch.library.custom_op(f"{NAMESPACE}::combine_fwd", mutates_args=())
def combine_fwd(rows: Tensor, weights: Tensor, order: Tensor, place: Tensor) -> Tensor:
    """rows `[N * k, d]`, weights `[N, k]` -> `[N, d]`."""
    total = torch.zeros(place.shape[0], rows.shape[1], dtype=promote(rows.dtype), device=rows.device)
    for choice, weight in zip(place.unbind(1), weights.to(total.dtype).unbind(1), strict=True):
        total.addcmul_(rows.index_select(0, choice).to(total.dtype), weight[:, None])
    return total.to(rows.dtype)


@torch.library.custom_op(f"{NAMESPACE}::combine_bwd", mutates_args=())
def combine_bwd(grad: Tensor, rows: Tensor, weights: Tensor, order: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of rows `[N * k, d]` and weights `[N, k]`."""
    compute = promote(rows.dtype)
    grad_rows = grad.index_select(0, order // place.shape[1]).to(compute)  # [N * k, d]: of each row's token
    grad_weights = (grad_rows * rows).sum(-1)[place]  # [N, k]
    grad_rows *= weights.flatten()[order][:, None]
    return grad_rows.to(rows.dtype), grad_weights.to(weights.dtype)


# Multiplying rows.


def _is_grouped(rows: Tensor, weight: Tensor) -> bool:
    """Whether torch's grouped_mm takes it: rows of both matrices must start at multiples of 16 bytes."""
    aligned = weight.shape[1] % 8 == 0 and weight.shape[2] % 8 == 0
    return rows.is_cuda and rows.dtype == torch.bfloat16 and aligned


def _groups(ends: Tensor) -> list[tuple[int, slice]]:
    """The experts that have rows, with their rows."""
    bounds = pairwise([0, *ends.tolist()])
    return [(expert, slice(start, end)) for expert, (start, end) in enumerate(bounds) if end > start]


@torch.library.custom_op(f"{NAMESPACE}::grouped_linear_fwd", mutates_args=())
def grouped_linear_fwd(rows: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    """rows `[R, d_in]`, weight `[E, d_out, d_in]`, ends `[E]` -> `[R, d_out]`."""
    if _is_grouped(rows, weight):
        return F.grouped_mm(rows.contiguous(), weight.transpose(1, 2), offs=ends)
    out = rows.new_empty(rows.shape[0], weight.shape[1])
    for expert, group in _groups(ends):
        torch.mm(rows[group], weight[expert].t(), out=out[group])
    return out


@torch.library.custom_op(f"{NAMESPACE}::grouped_linear_bwd", mutates_args=())
def grouped_linear_bwd(grad: Tensor, rows: Tensor, weight: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of rows `[R, d_in]` and weight `[E, d_out, d_in]`; zero for an expert without rows."""
    if _is_grouped(rows, weight):
        grad, rows = grad.contiguous(), rows.contiguous()
        # grad's transpose is column-major and rows are row-major: the one layout that allows empty and odd groups.
        return F.grouped_mm(grad, weight, offs=ends), F.grouped_mm(grad.t(), rows, offs=ends)
    grad_rows, grad_weight = torch.empty_like(rows), torch.zeros_like(weight)
    for expert, group in _groups(ends):
        torch.mm(grad[group], weight[expert], out=grad_rows[group])
        torch.mm(grad[group].t(), rows[group], out=grad_weight[expert])
    return grad_rows, grad_weight


# Shapes, gradients and counts.


@dispatch_fwd.register_fake
def _(tokens: Tensor, order: Tensor, place: Tensor) -> Tensor:
    return tokens.new_empty(order.shape[0], tokens.shape[1])


@dispatch_bwd.register_fake
def _(grad_rows: Tensor, place: Tensor) -> Tensor:
    return grad_rows.new_empty(place.shape[0], grad_rows.shape[1])


@combine_fwd.register_fake
def _(rows: Tensor, weights: Tensor, order: Tensor, place: Tensor) -> Tensor:
    return rows.new_empty(place.shape[0], rows.shape[1])


@combine_bwd.register_fake
def _(grad: Tensor, rows: Tensor, weights: Tensor, order: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
    return rows.new_empty(rows.shape), weights.new_empty(weights.shape)


@grouped_linear_fwd.register_fake
def _(rows: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    return rows.new_empty(rows.shape[0], weight.shape[1])


@grouped_linear_bwd.register_fake
def _(grad: Tensor, rows: Tensor, weight: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
    return rows.new_empty(rows.shape), weight.new_empty(weight.shape)


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _save_place(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(inputs[2])


def _dispatch_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return dispatch_bwd(grad, *ctx.saved_tensors), None, None


def _combine_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return *combine_bwd(grad, *ctx.saved_tensors), None, None


def _grouped_linear_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return *grouped_linear_bwd(grad, *ctx.saved_tensors), None


dispatch_fwd.register_autograd(_dispatch_backward, setup_context=_save_place)
combine_fwd.register_autograd(_combine_backward, setup_context=_save)
grouped_linear_fwd.register_autograd(_grouped_linear_backward, setup_context=_save)
keep_results(getattr(torch.ops, NAMESPACE).grouped_linear_fwd)


@register_flop_formula(getattr(torch.ops, NAMESPACE).grouped_linear_fwd)
def _forward_flops(rows: Sequence[int], weight: Sequence[int], *_: Any, **__: Any) -> int:
    return flops(rows[0], weight[2], weight[1])


@register_flop_formula(getattr(torch.ops, NAMESPACE).grouped_linear_bwd)
def _backward_flops(_grad: Any, rows: Sequence[int], weight: Sequence[int], *_: Any, **__: Any) -> int:
    return 2 * flops(rows[0], weight[2], weight[1])
