"""Mamba: a selective state-space mixer.

Sources: Gu & Dao 2023, arXiv:2312.00752; inner norms: Jamba, arXiv:2403.19887.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from archc.ir.body import Body
from archc.ir.size import Size, as_size, ceil_div
from archc.ir.values import Init, Value
from archc.layers.kind import Mixer, Norm
from archc.ops.conv import causal_conv1d
from archc.ops.linear import linear, linear_parts, out_linear
from archc.ops.pointwise import mul, silu, softplus
from archc.ops.scan import selective_scan


@dataclass(frozen=True, kw_only=True)
class Mamba(Mixer, keyword="mamba"):
    """Mamba: a selective state-space mixer (Gu & Dao 2023, arXiv:2312.00752)."""

    d_state: int = field(default=16, metadata={"doc": "state per channel"})
    d_conv: int = field(default=4, metadata={"doc": "width of the causal convolution"})
    expand: int = field(default=2, metadata={"doc": "d_inner = expand * d_model"})
    dt_rank: int | None = field(default=None, metadata={"doc": "rank of dt; ceil(d_model / 16) unless given"})
    conv_bias: bool = field(default=True, metadata={"doc": "bias of the convolution"})
    bias: bool = field(default=False, metadata={"doc": "bias of in_proj and out_proj"})
    inner_norm: Norm | None = field(default=None, metadata={"doc": "norm of dt, B and C, as in Jamba"})

    def forward(self, b: Body, h: Value) -> Value:
        d_inner = b.axis("d_inner", self.expand * b.d_model.symbol)
        d_state = b.axis("d_state", self.d_state)
        dt_rank = b.axis("dt_rank", self.rank(b.d_model.symbol))
        x, z = linear_parts(b, "in_proj", h, to=(d_inner, d_inner), bias=self.bias)
        x = causal_conv1d(b, "conv1d", x, b.axis("d_conv", self.d_conv), bias=self.conv_bias)
        x = silu(b, x)
        dt, B, C = linear_parts(b, "x_proj", x, to=(dt_rank, d_state, d_state))
        if self.inner_norm is not None:
            dt = self.inner_norm.apply(b, "dt_norm", dt)
            B = self.inner_norm.apply(b, "B_norm", B)
            C = self.inner_norm.apply(b, "C_norm", C)
        dt = linear(
            b,
            "dt_proj",
            dt,
            to=d_inner,
            bias=True,
            init=Init("dt_weight_", (dt_rank.size.value,)),
            bias_init=Init("dt_bias_"),
            bias_fp32=True,
        )
        dt = softplus(b, dt)
        y = selective_scan(b, x, dt, B, C)
        y = mul(b, y, silu(b, z))
        return out_linear(b, "out_proj", y, bias=self.bias)

    def rank(self, d_model: Size) -> Size:
        return ceil_div(d_model, 16) if self.dt_rank is None else as_size(self.dt_rank)
