"""Parts that layer kinds and settings are made of: norms, head groupings, positions, routers."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import ClassVar

from archc.ir.body import Body
from archc.ir.values import Value
from archc.layers.kind import Norm, Part
from archc.ops.norm import rms_norm


@dataclass(frozen=True, kw_only=True)
class RMS(Norm, keyword="rms"):
    """Root-mean-square norm with a weight (arXiv:1910.07467)."""

    def apply(self, b: Body, path: str, x: Value) -> Value:
        return rms_norm(b, path, x, float(self.eps))


@dataclass(frozen=True, kw_only=True)
class Heads(Part):
    """How many query heads there are, and how many key/value heads they share."""

    n_heads: int = field(metadata={"doc": "query heads"})

    @property
    def n_kv(self) -> int:
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class GroupedHeads(Heads, keyword="gqa"):
    """Grouped queries (arXiv:2305.13245): `gqa(32, 8)` is 32 query heads over 8 key/value heads."""

    n_kv_heads: int = field(metadata={"doc": "key/value heads"})

    @property
    def n_kv(self) -> int:
        return self.n_kv_heads


@dataclass(frozen=True, kw_only=True)
class MultiHeads(Heads, keyword="mha"):
    """Every query head has its own keys and values: `mha(32)`."""

    @property
    def n_kv(self) -> int:
        return self.n_heads


@dataclass(frozen=True, kw_only=True)
class OneKeyHead(Heads, keyword="mqa"):
    """All query heads share one key/value head (arXiv:1911.02150): `mqa(32)`."""

    @property
    def n_kv(self) -> int:
        return 1


@dataclass(frozen=True, kw_only=True)
class Rope(Part, keyword="rope"):
    """Rotary positions (arXiv:2104.09864), halves rotated."""

    theta: Fraction = field(default=Fraction(10_000), metadata={"doc": "base of the wavelengths"})
    dims: int | None = field(default=None, metadata={"doc": "rotated dimensions of each head; all unless given"})


@dataclass(frozen=True, kw_only=True)
class Router(Part):
    """How a mixture of experts chooses."""

    scores: ClassVar[str] = ""
    renorm: bool = field(default=False, metadata={"doc": "divide the chosen weights by their sum"})


@dataclass(frozen=True, kw_only=True)
class SoftmaxRouter(Router, keyword="softmax"):
    """Softmax over all experts, in at least fp32."""

    scores: ClassVar[str] = "softmax"
