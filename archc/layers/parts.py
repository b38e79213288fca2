"""Parts that layer kinds and settings are made of: norms, head groupings, positions, routers."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import ClassVar, Literal

from archc.ir.body import Body
from archc.ir.values import Init, Value
from archc.layers.kind import Norm, Part, Problem
from archc.layers.words import either
from archc.ops.linear import linear, linear_parts
from archc.ops.norm import rms_norm
from archc.ops.pointwise import add


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

    theta: Fraction = field(default=Fraction(10_000), metadata={"doc": "base of the wavelengths", "above": 0})
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


@dataclass(frozen=True, kw_only=True)
class Lora(Part, keyword="lora"):
    """A low-rank addition to projections (arXiv:2106.09685), unscaled: `W x + B (A x)`."""

    rank: int = field(metadata={"doc": "rank of A and B"})
    on: tuple[str, ...] = field(
        metadata={"doc": "the projections that get one, of q, k, v and gate_up", "example": "on=[q, k, v]"}
    )

    def problems(self, keyword: str, projections: tuple[str, ...]) -> list[Problem]:
        """What is wrong with the adapters of a kind that has these projections."""
        unknown = [name for name in self.on if name not in projections]
        message = f"`{keyword}` has no projection `{unknown[0]}` to adapt" if unknown else ""
        hint = f"its adapters may be on {either(projections, 'and')}"
        return [Problem("unknown-projection", message, ("lora.on",), "", hint)] if unknown else []

    def adapt(self, b: Body, name: str, x: Value, *projected: Value) -> tuple[Value, ...]:
        """`projected` with what the adapter `name` adds to each; a shared module has its own for each use."""
        if name not in self.on:
            return projected
        with b.per_use():
            low = linear(b, f"{name}_adapter_A", x, to=b.axis("rank", self.rank))
            to = tuple(value.width for value in projected)
            added = linear_parts(b, f"{name}_adapter_B", low, to=to, init=Init("zeros_"))
        return tuple(add(b, value, more) for value, more in zip(projected, added, strict=True))


@dataclass(frozen=True, kw_only=True)
class ShareInput(Part):
    """What a shared module reads."""


@dataclass(frozen=True, kw_only=True)
class Concat(ShareInput, keyword="concat"):
    """Two values side by side: `concat(h, embed)`."""

    first: Literal["h", "embed"] = field(metadata={"doc": "h, the stream, or embed, the embedded tokens"})
    second: Literal["h", "embed"] = field(metadata={"doc": "h or embed"})


@dataclass(frozen=True, kw_only=True)
class ShareFields(Part):
    """Fields of a `share`."""

    in_: ShareInput | None = field(default=None, metadata={"doc": "what it reads; the stream unless given"})
    residual: Literal["add"] | None = field(default="add", metadata={"doc": "none leaves out the residuals inside it"})
    out: Literal["linear"] | None = field(default=None, metadata={"doc": "linear: each use projects its output"})

    @property
    def reads_embedding(self) -> bool:
        return isinstance(self.in_, Concat) and "embed" in (self.in_.first, self.in_.second)
