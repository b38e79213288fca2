"""Channel mixers: gated and plain two-layer networks.

Sources: arXiv:2002.05202 (GLU variants), arXiv:1606.08415 (GELU), arXiv:2109.08668 (squared ReLU).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import ClassVar, Literal

from archc.ir.body import Body
from archc.ir.values import Value
from archc.layers.kind import ChannelMixer, Problem
from archc.layers.parts import Lora
from archc.ops.linear import linear, out_linear
from archc.ops.pointwise import activation, mul, scaled


@dataclass(frozen=True, kw_only=True)
class GatedMLP(ChannelMixer):
    """`down(act(gate(h)) * up(h))`."""

    function: ClassVar[str | None] = None
    d_ff: int = field(metadata={"doc": "hidden width", "example": "14336"})
    bias: bool = field(default=False, metadata={"doc": "biases of all three projections"})
    lora: Lora | None = field(default=None, metadata={"doc": "a low-rank adapter on gate_up"})
    gate_scale: Fraction | None = field(default=None, metadata={"doc": "factor on the gate, before its function"})

    def forward(self, b: Body, h: Value) -> Value:
        d_ff = b.axis("d_ff", self.d_ff)
        gate = linear(b, "gate_proj", h, to=d_ff, bias=self.bias)
        up = linear(b, "up_proj", h, to=d_ff, bias=self.bias)
        if self.lora is not None:
            gate, up = self.lora.adapt(b, h, gate_up=(gate, up))
        if self.gate_scale is not None:
            gate = scaled(b, gate, float(self.gate_scale))
        function = self.gate_function
        y = mul(b, gate if function is None else activation(b, function, gate), up)
        return out_linear(b, "down_proj", y, bias=self.bias)

    @property
    def gate_function(self) -> str | None:
        """What the gate goes through; None for nothing."""
        return self.function

    @property
    def adaptable(self) -> tuple[str, ...]:
        return ("gate_up",)

    def problems(self, d_model: int) -> list[Problem]:
        return [] if self.lora is None else self.lora.problems(self.keyword, self.adaptable)


@dataclass(frozen=True, kw_only=True)
class SwiGLU(GatedMLP, keyword="swiglu"):
    """`down(silu(gate(h)) * up(h))` (Shazeer 2020, arXiv:2002.05202)."""

    function: ClassVar[str] = "silu"


@dataclass(frozen=True, kw_only=True)
class GeGLU(GatedMLP, keyword="geglu"):
    """`down(gelu(gate(h)) * up(h))` (Shazeer 2020, arXiv:2002.05202)."""

    function: ClassVar[str] = "gelu"


@dataclass(frozen=True, kw_only=True)
class GeGLUTanh(GatedMLP, keyword="geglu_tanh"):
    """`down(gelu(gate(h)) * up(h))` with GELU's tanh approximation, as Gemma has it (arXiv:2002.05202)."""

    function: ClassVar[str] = "gelu_tanh"


@dataclass(frozen=True, kw_only=True)
class GLU(GatedMLP, keyword="glu"):
    """`down(act(gate(h)) * up(h))` with any function of the gate, or none: bilinear (arXiv:2002.05202)."""

    act: Literal["silu", "gelu", "gelu_tanh", "relu", "relu2", "sigmoid"] | None = field(
        default="sigmoid", metadata={"doc": "function of the gate; none leaves it as it is"}
    )

    @property
    def gate_function(self) -> str | None:
        return self.act


@dataclass(frozen=True, kw_only=True)
class PlainMLP(ChannelMixer):
    """`down(act(up(h)))`."""

    function: ClassVar[str] = ""
    d_ff: int = field(metadata={"doc": "hidden width", "example": "14336"})
    bias: bool = field(default=False, metadata={"doc": "biases of both projections"})

    def forward(self, b: Body, h: Value) -> Value:
        y = linear(b, "up_proj", h, to=b.axis("d_ff", self.d_ff), bias=self.bias)
        y = activation(b, self.function, y)
        return out_linear(b, "down_proj", y, bias=self.bias)


@dataclass(frozen=True, kw_only=True)
class GELU(PlainMLP, keyword="gelu"):
    """`down(gelu(up(h)))`, the exact GELU (arXiv:1606.08415)."""

    function: ClassVar[str] = "gelu"


@dataclass(frozen=True, kw_only=True)
class GELUTanh(PlainMLP, keyword="gelu_tanh"):
    """`down(gelu(up(h)))` with GELU's tanh approximation, as GPT-2 has it (arXiv:1606.08415)."""

    function: ClassVar[str] = "gelu_tanh"


@dataclass(frozen=True, kw_only=True)
class ReLU(PlainMLP, keyword="relu"):
    """`down(relu(up(h)))`."""

    function: ClassVar[str] = "relu"


@dataclass(frozen=True, kw_only=True)
class ReLU2(PlainMLP, keyword="relu2"):
    """`down(relu(up(h))²)` (Primer, arXiv:2109.08668)."""

    function: ClassVar[str] = "relu2"
