"""Recomputation: layers that keep less for backward and compute the rest again (Chen et al. 2016, arXiv:1604.06174).

* `none`: everything that autograd saves is kept.
* `selective`: of each layer, what it reads and the results of matrix products, attention and scans. What is computed
  again are norms, convolutions and what is pointwise (the idea is that of Korthikanti et al. 2022, arXiv:2205.05198),
  and products much wider than what they are made from, as Mamba's dt and what adapters add: large, and cheap to have.
* `full`: of each layer, the stream that it reads; the layer is computed again. What the layer before left unadded is
  added first, so that one tensor is kept and not two. That add is then no part of the norm behind it: in 16 bits,
  gradients may differ from the other modes in their last bit. In fp32 they are the same in all modes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

Recompute = Literal["none", "selective", "full"]

WIDENS = 8  # times as wide as its operand: such a product is computed again

_aten = torch.ops.aten
_products = (_aten.mm.default, _aten.addmm.default, _aten.bmm.default)
_dear: set[Any] = set()


def keep_results(*operations: Any) -> None:
    """Let `selective` keep what these operations (`torch.ops.NAMESPACE.name`) return."""
    _dear.update(operation.default for operation in operations)


def layer_call(mode: Recompute, *, pending: bool) -> Callable[..., Any]:
    """How to call layers, as `call(layer, *arguments)`. With `pending` the first two are a branch and the stream."""
    if mode == "none" or not torch.is_grad_enabled():
        return _plainly
    if mode == "selective":
        contexts = partial(create_selective_checkpoint_contexts, _choose)
        return partial(checkpoint, use_reentrant=False, context_fn=contexts)
    return _added if pending else partial(checkpoint, use_reentrant=False)


def _choose(_context: object, operation: Any, *arguments: Any, **_options: Any) -> CheckpointPolicy:
    """Whether to keep what an operation returns."""
    if operation in _products:
        rows, matrix = arguments[-2:]
        kept = matrix.shape[-1] <= WIDENS * rows.shape[-1]
    else:
        kept = operation in _dear
    return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE


def _plainly(layer: Callable[..., Any], *arguments: Any) -> Any:
    return layer(*arguments)


def _added(layer: Callable[..., Any], delta: Tensor | None, residual: Tensor, *arguments: Any) -> Any:
    residual = residual if delta is None else residual + delta
    return checkpoint(layer, None, residual, *arguments, use_reentrant=False)
