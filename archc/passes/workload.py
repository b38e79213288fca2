"""What is asked of a model: how many sequences of how many tokens, and what their numbers are stored in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

Dtype = Literal["fp64", "fp32", "bf16", "fp16", "fp8", "int8"]
DTYPE_BYTES: dict[Dtype, int] = {"fp64": 8, "fp32": 4, "bf16": 2, "fp16": 2, "fp8": 1, "int8": 1}
DEFAULT_CONTEXT = 4096  # tokens, where neither the spec nor the user says


class Stored(Protocol):
    """What decides about the width of a weight's elements beside the model's dtype."""

    @property
    def keep_fp32(self) -> bool: ...
    @property
    def int8(self) -> bool: ...


def stored_width(weight: Stored, dtype: Dtype) -> int:
    """Bytes of an element of `weight`, where weights are stored as `dtype`."""
    if weight.int8:
        return DTYPE_BYTES["int8"]
    return max(DTYPE_BYTES[dtype], DTYPE_BYTES["fp32"]) if weight.keep_fp32 else DTYPE_BYTES[dtype]


@dataclass(frozen=True, slots=True)
class Workload:
    """`batch` sequences of `context` tokens.

    `dtype` stores weights and activations (a convolution's cache among them), `kv_dtype` keys and values, `state_dtype`
    what a recurrence hands from token to token; `weight_dtype` is for weights that are stored otherwise. `assumed` says
    that nobody gave the context; `prefix` learned tokens of the model stand before each sequence. Raises ValueError for
    a size below 1 or an unknown dtype.
    """

    context: int
    batch: int = 1
    dtype: Dtype = "bf16"
    kv_dtype: Dtype = "bf16"
    state_dtype: Dtype = "fp32"
    assumed: bool = False
    weight_dtype: Dtype | None = None
    prefix: int = 0

    def __post_init__(self) -> None:
        if self.context < 1 or self.batch < 1:
            raise ValueError("a workload has at least one sequence of at least one token")
        for dtype in (self.dtype, self.kv_dtype, self.state_dtype, self.weights):
            if dtype not in DTYPE_BYTES:
                raise ValueError(f"{dtype!r} is not a dtype; there are {', '.join(DTYPE_BYTES)}")

    @property
    def n_tokens(self) -> int:
        """Tokens of all sequences."""
        return self.batch * self.context

    @property
    def weights(self) -> Dtype:
        """What weights are stored in."""
        return self.weight_dtype or self.dtype

    @property
    def sequences(self) -> dict[str, int]:
        """The free symbols of sizes, for whole sequences from their first token on."""
        length = self.prefix + self.context
        return {"B": self.batch, "T": length, "P": 0, "context": length}

    @property
    def last_token(self) -> dict[str, int]:
        """The same for one decode step: the last token of the context, after all others."""
        length = self.prefix + self.context
        return {"B": self.batch, "T": 1, "P": length - 1, "context": length}

    def bytes_of(self, role: Literal["kv", "state", "activation"]) -> int:
        """Bytes of one element of a state, by the role that it plays in the precision policy."""
        stored_as = {"kv": self.kv_dtype, "state": self.state_dtype, "activation": self.dtype}
        return DTYPE_BYTES[stored_as[role]]
