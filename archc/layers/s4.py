"""S4: a state space that does not change with time, with a diagonal A (S4D), behind it GELU and a gated projection.

Sources: Gu et al. 2021, arXiv:2111.00396; diagonal, Gu et al. 2022, arXiv:2206.11893.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from archc.ir.body import Body
from archc.ir.values import Init, Value
from archc.layers.kind import Mixer, Problem
from archc.ops.linear import linear_parts, out_linear
from archc.ops.pointwise import activation, mul
from archc.ops.s4d import s4d


@dataclass(frozen=True, kw_only=True)
class S4(Mixer, keyword="s4"):
    """S4: a diagonal state space that does not change with time (Gu et al. 2022, arXiv:2206.11893)."""

    d_state: int = field(default=64, metadata={"doc": "real state per channel: d_state / 2 complex pairs"})
    discretisation: Literal["zoh", "bilinear"] = field(default="zoh", metadata={"doc": "how A and B follow from dt"})
    init: Literal["lin", "inv"] = field(default="lin", metadata={"doc": "frequencies to begin with: S4D-Lin, S4D-Inv"})
    out: Literal["glu", "linear"] | None = field(default="glu", metadata={"doc": "projection; none leaves it out"})
    bias: bool = field(default=True, metadata={"doc": "bias of the projection"})

    def forward(self, b: Body, h: Value) -> Value:
        pairs = b.axis("d_state/2", b.axis("d_state", self.d_state).symbol // 2)
        y = s4d(b, h, pairs, discretisation=self.discretisation, start=self.init)
        y = activation(b, "gelu", y)
        if self.out is None:
            return y
        if self.out == "linear":
            return out_linear(b, "out_proj", y, bias=self.bias)
        init = Init("normal_", (0.02,), residual_out=True)
        y, gate = linear_parts(b, "out_proj", y, to=(b.d_model, b.d_model), bias=self.bias, init=init)
        return mul(b, y, activation(b, "sigmoid", gate))

    def problems(self, d_model: int) -> list[Problem]:
        if self.d_state % 2 == 0:
            return []
        message = f"the states of `s4` are conjugate pairs, and {self.d_state} is odd"
        return [Problem("odd-state", message, ("d_state",), "", f"write d_state={self.d_state + 1}")]
