"""What the model.py of every generated package offers; the files beside this one type-check against it."""

import torch
from torch import Tensor, nn

from .cache import Cache
from .recompute import Recompute

NAME: str
VOCAB: int
CONTEXT: int
SPEC_HASH: str

class Model(nn.Module):
    """The language model: tokens [B, T] (int64) to logits [B, T, VOCAB]."""

    layers: nn.ModuleList
    recompute: Recompute

    def __call__(self, tokens: Tensor, *, positions: Tensor | None = None, cache: Cache | None = None) -> Tensor: ...
    def forward(self, tokens: Tensor, *, positions: Tensor | None = None, cache: Cache | None = None) -> Tensor: ...
    def init_weights(self) -> None: ...
    def init_cache(
        self,
        batch: int,
        context: int,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
    ) -> Cache: ...
    def no_decay(self) -> set[str]: ...
    def keep_fp32(self) -> set[str]: ...
