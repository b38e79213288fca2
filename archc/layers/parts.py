"""Parts that layer kinds and settings are made of: norms, head groupings, positions, routers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, ClassVar, Literal, TypeVar

from archc.ir.body import Body
from archc.ir.op import MisfitError
from archc.ir.values import Init, Value
from archc.layers.kind import Kind, Norm, Part, Problem
from archc.layers.words import either
from archc.ops.conv import causal_conv1d
from archc.ops.gated_norm import gated_rms_norm
from archc.ops.grouped_norm import grouped_rms_norm
from archc.ops.layer_norm import layer_norm
from archc.ops.linear import linear, linear_parts
from archc.ops.norm import rms_norm
from archc.ops.pointwise import activation, add

AnyKind = TypeVar("AnyKind", bound=Kind)
LORA = "lora"  # the field of a kind that is `adaptable`


@dataclass(frozen=True, kw_only=True)
class RMS(Norm, keyword="rms"):
    """Root-mean-square norm with a weight (arXiv:1910.07467)."""

    weight: Literal["plain", "one_plus"] = field(
        default="plain", metadata={"doc": "one_plus stores the factor less 1, as Gemma does"}
    )
    groups: int = field(default=1, metadata={"doc": "equal groups of channels, each normed by itself"})

    def apply(self, b: Body, path: str, x: Value) -> Value:
        one_plus = self.weight == "one_plus"
        if self.groups == 1:
            return rms_norm(b, path, x, float(self.eps), one_plus=one_plus)
        if one_plus:
            raise MisfitError("a norm in groups has a plain weight, not one_plus")
        return grouped_rms_norm(b, path, x, float(self.eps), self.groups)

    def gated(
        self, b: Body, path: str, y: Value, z: Value, *, groups: int = 1, norm_before_gate: bool = False
    ) -> Value:
        """The norm of y beside a SiLU gate z, as Mamba-2 has it: in the `groups` of the layer, with a plain weight."""
        if self.weight != "plain" or self.groups != 1:
            raise MisfitError(
                "a norm beside a gate takes eps alone: its weight is plain, and the layer says its groups"
            )
        return gated_rms_norm(b, path, y, z, eps=float(self.eps), groups=groups, norm_before_gate=norm_before_gate)


@dataclass(frozen=True, kw_only=True)
class LayerNorm(Norm, keyword="layer_norm"):
    """Layer norm: mean subtracted, with a weight and a bias (arXiv:1607.06450)."""

    bias: bool = field(default=True, metadata={"doc": "a bias behind the weight"})

    def apply(self, b: Body, path: str, x: Value) -> Value:
        return layer_norm(b, path, x, float(self.eps), bias=self.bias)


@dataclass(frozen=True, kw_only=True)
class Heads(Part):
    """How many query heads there are, and how many key/value heads they share."""

    n_heads: int = field(metadata={"doc": "query heads", "example": "32"})

    @property
    def n_kv(self) -> int:
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class GroupedHeads(Heads, keyword="gqa"):
    """Grouped queries (arXiv:2305.13245): `gqa(32, 8)` is 32 query heads over 8 key/value heads."""

    n_kv_heads: int = field(metadata={"doc": "key/value heads", "example": "8"})

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
class Conv(Part, keyword="conv"):
    """A causal depthwise convolution: `conv(4, act=silu)`."""

    d_conv: int = field(metadata={"doc": "tokens that it sees, itself included", "example": "conv(4)"})
    bias: bool = field(default=True, metadata={"doc": "a bias of each channel"})
    act: Literal["silu"] | None = field(default=None, metadata={"doc": "a function behind it"})

    def apply(self, b: Body, path: str, x: Value) -> Value:
        y = causal_conv1d(b, path, x, b.axis("d_conv", self.d_conv), bias=self.bias)
        return y if self.act is None else activation(b, self.act, y)


@dataclass(frozen=True, kw_only=True)
class Router(Part):
    """How a mixture of experts chooses, and how it weighs what it chose. Scores are computed in at least fp32.

    A softmax over the chosen logits alone is `softmax(renorm)`: both divide the same exponentials by their sum.
    """

    scores: ClassVar[str] = ""
    renorm: bool = field(default=False, metadata={"doc": "divide the chosen weights by their sum"})
    select_bias: bool = field(
        default=False, metadata={"doc": "a bias of each expert that the choice sees and the weights do not"}
    )
    scale: Fraction = field(default=Fraction(1), metadata={"doc": "factor on the weights, after renorm", "above": 0})
    groups: int = field(default=1, metadata={"doc": "groups of neighbouring experts"})
    top_groups: int | None = field(default=None, metadata={"doc": "groups that a token may choose from"})
    group_top: int = field(default=2, metadata={"doc": "how many of its best scores make the score of a group"})
    jitter: Fraction | None = field(
        default=None, metadata={"doc": "training: uniform noise on what the router reads, 1 - j to 1 + j", "above": 0}
    )

    def problems(self, top_k: int, n_experts: int) -> list[Problem]:
        """What is wrong with a router of `top_k` of `n_experts`; fields are paths into what holds it as `router`."""
        found = self._group_problems(top_k, n_experts)
        if self.jitter is not None and self.jitter >= 1:
            message = f"jitter draws factors down to 1 - {self.jitter}, and they must stay above 0"
            found.append(Problem("too-much-jitter", message, ("router.jitter",), "", "Switch has jitter=0.01"))
        return found

    def _group_problems(self, top_k: int, n_experts: int) -> list[Problem]:
        if self.groups == 1:
            message = f"there are not {self.top_groups} groups to choose from: the experts are one group"
            hint = "say how many groups there are: groups=8"
            some = self.top_groups is not None and self.top_groups > 1
            return [Problem("expert-groups", message, ("router.top_groups",), "", hint)] if some else []
        if self.top_groups is None:
            message = f"of {self.groups} groups of experts a token may choose from some, and it is not said how many"
            hint = "DeepSeek-V3 has groups=8, top_groups=4"
            return [Problem("expert-groups", message, ("router.groups",), "", hint)]
        if n_experts % self.groups:
            message = f"{n_experts} experts cannot form {self.groups} equal groups"
            return [Problem("uneven-groups", message, ("router.groups", "n_experts"), f"does not divide {n_experts}")]
        width, fields = n_experts // self.groups, ("router.top_groups", "router.groups")
        if self.top_groups > self.groups:
            message = f"a token cannot choose from {self.top_groups} of {self.groups} groups"
            return [Problem("expert-groups", message, fields, "", f"top_groups may be 1 to {self.groups}")]
        if self.group_top > width:
            message = f"the score of a group is that of its best {self.group_top}, and it has {width}"
            hint = "say group_top=1" if width == 1 else f"group_top may be 1 to {width}"
            return [Problem("expert-groups", message, ("router.group_top", "router.groups"), "", hint)]
        if top_k > self.top_groups * width:
            message = f"a token goes to {top_k} experts, more than the {self.top_groups * width} of its best groups"
            hint = f"top_groups is at least {-(-top_k // width)}"
            return [Problem("expert-groups", message, (*fields, "top_k"), "", hint)]
        return []


@dataclass(frozen=True, kw_only=True)
class SoftmaxRouter(Router, keyword="softmax"):
    """Softmax over all experts (arXiv:1701.06538)."""

    scores: ClassVar[str] = "softmax"


@dataclass(frozen=True, kw_only=True)
class SigmoidRouter(Router, keyword="sigmoid"):
    """The sigmoid of each expert's own logit (DeepSeek-V3, arXiv:2412.19437)."""

    scores: ClassVar[str] = "sigmoid"


@dataclass(frozen=True, kw_only=True)
class Lora(Part, keyword="lora"):
    """A low-rank addition to projections (arXiv:2106.09685), unscaled: `W x + B (A x)`."""

    rank: int = field(metadata={"doc": "rank of A and B", "example": "64"})
    on: tuple[str, ...] = field(
        metadata={
            "doc": "the projections that get one, of q, k, v (with qkv_conv: qkv), gate_up",
            "example": "on=[q, k, v]",
        }
    )

    def problems(self, keyword: str, projections: tuple[str, ...]) -> list[Problem]:
        """What is wrong with the adapters of a kind that has these projections."""
        unknown = [name for name in self.on if name not in projections]
        message = f"`{keyword}` has no projection `{unknown[0]}` to adapt" if unknown else ""
        hint = f"its adapters may be on {either(projections, 'and')}"
        return [Problem("unknown-projection", message, ("lora.on",), "", hint)] if unknown else []

    def beside(self, kind: AnyKind) -> AnyKind:
        """`kind` with these adapters on the projections that it has, unless it says its own."""
        on = tuple(name for name in self.on if name in kind.adaptable)
        own: dict[str, Any] = {LORA: replace(self, on=on)}
        return replace(kind, **own) if on and getattr(kind, LORA) is None else kind

    def adapt(self, b: Body, x: Value, **projected: tuple[Value, ...]) -> tuple[Value, ...]:
        """All of `projected`, each with what the adapter of its name adds; a shared module has its own for each use."""
        with b.per_use():
            rank = b.axis("rank", self.rank)
            low = {name: linear(b, f"{name}_adapter_A", x, to=rank) for name in projected if name in self.on}
        adapted: list[Value] = []
        for name, values in projected.items():
            if name in low:
                with b.per_use():
                    to = tuple(value.width for value in values)
                    added = linear_parts(b, f"{name}_adapter_B", low[name], to=to, init=Init("zeros_"))
                values = tuple(add(b, value, more) for value, more in zip(values, added, strict=True))
            adapted += values
        return tuple(adapted)


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
    adapter: Lora | None = field(
        default=None,
        metadata={"doc": "low-rank adapters of each use, on those of its layers that have the projections"},
    )

    @property
    def reads_embedding(self) -> bool:
        return isinstance(self.in_, Concat) and "embed" in (self.in_.first, self.in_.second)
