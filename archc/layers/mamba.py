"""Mamba: a selective state-space mixer.

Sources: Gu & Dao 2023, arXiv:2312.00752; inner norms: Jamba, arXiv:2403.19887; heads: Zamba, arXiv:2405.16712.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from archc.ir.body import Body
from archc.ir.size import Size, as_size, ceil_div
from archc.ir.values import Init, Value
from archc.layers.kind import Mixer, Norm, Problem
from archc.layers.words import divisors, either
from archc.ops.attention import merge_heads, split_heads
from archc.ops.conv import causal_conv1d
from archc.ops.head_linear import head_linear_parts
from archc.ops.linear import linear_parts, out_linear
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
    n_heads: int = field(default=1, metadata={"doc": "parts of the inner width with dt, B and C of their own"})

    def forward(self, b: Body, h: Value) -> Value:
        d_inner = b.axis("d_inner", self.expand * b.d_model.symbol)
        d_state = b.axis("d_state", self.d_state)
        dt_rank = b.axis("dt_rank", self.rank(b.d_model.symbol))
        x, z = linear_parts(b, "in_proj", h, to=(d_inner, d_inner), bias=self.bias)
        x = causal_conv1d(b, "conv1d", x, b.axis("d_conv", self.d_conv), bias=self.conv_bias)
        x = silu(b, x)
        project = linear_parts
        if self.n_heads > 1:
            n_heads, d_head = b.axis("n_heads", self.n_heads), b.axis("d_head", d_inner.symbol // self.n_heads)
            x, z = split_heads(b, x, n_heads, d_head), split_heads(b, z, n_heads, d_head)
            project = head_linear_parts
        dt, B, C = project(b, "x_proj", x, (dt_rank, d_state, d_state))
        if self.inner_norm is not None:
            dt = self.inner_norm.apply(b, "dt_norm", dt)
            B = self.inner_norm.apply(b, "B_norm", B)
            C = self.inner_norm.apply(b, "C_norm", C)
        init, bias_init = Init("dt_weight_", (dt_rank.size.value,)), Init("dt_bias_")
        (dt,) = project(b, "dt_proj", dt, (x.width,), bias=True, init=init, bias_init=bias_init, bias_fp32=True)
        dt = softplus(b, dt)
        y = selective_scan(b, x, dt, B, C)
        y = mul(b, y, silu(b, z))
        if self.n_heads > 1:
            y = merge_heads(b, y)
        return out_linear(b, "out_proj", y, bias=self.bias)

    def problems(self, d_model: int) -> list[Problem]:
        d_inner = self.expand * d_model
        if d_inner % self.n_heads == 0:
            return []
        message = f"an inner width of {self.expand} * {d_model} = {d_inner} does not divide into {self.n_heads} heads"
        hint = f"n_heads may be {either(divisors(d_inner, self.n_heads))}"
        return [Problem("uneven-inner-width", message, ("n_heads",), f"does not divide {d_inner}", hint)]

    def rank(self, d_model: Size) -> Size:
        return ceil_div(d_model, 16) if self.dt_rank is None else as_size(self.dt_rank)
