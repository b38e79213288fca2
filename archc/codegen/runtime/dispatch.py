"""Which implementation of an operation runs: Triton on a GPU, plain torch elsewhere.

* CUDA tensors go to the Triton kernels.
* With `TRITON_INTERPRET=1` in the environment so does everything, through Triton's interpreter: slow, for tests.
* On the meta device nothing runs; shapes there are those of the Triton kernels.
* All other tensors, and float64 on every device, take the plain torch form in the operation's own file. It has the
  same mathematics, and the choice is logged once for each device and dtype.
"""

from __future__ import annotations

import functools
import logging
import os

import torch
from torch import Tensor

logger = logging.getLogger(__name__)
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def use_triton(x: Tensor) -> bool:
    """Whether the Triton kernels run for inputs like `x`; see the module's docstring for the rule."""
    if x.dtype != torch.float64 and (x.device.type in ("cuda", "meta") or INTERPRETED):
        return True
    _announce(x.device.type, x.dtype)
    return False


@functools.cache
def _announce(device: str, dtype: torch.dtype) -> None:
    logger.info("%s tensors on %s: plain torch implementations, no Triton kernels", dtype, device)


def accumulator(x: Tensor) -> torch.dtype:
    """The dtype in which operations on `x` compute: at least float32."""
    return torch.promote_types(x.dtype, torch.float32)


def rows(x: Tensor) -> Tensor:
    """`x` itself when its last dimension is contiguous, which is all that the kernels ask; else a copy."""
    return x if x.stride(-1) == 1 else x.contiguous()


def matrix(x: Tensor) -> Tensor:
    """`x` as `[rows, width]`, its last dimension contiguous: a view wherever its strides allow one, else a copy."""
    return rows(x.reshape(-1, x.shape[-1]))
