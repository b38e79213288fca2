"""Gated short convolution: a causal convolution of a few tokens between two gates.

Source: LFM2, Liquid AI 2025, arXiv:2511.23404; the order B, C, x as in transformers.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from archc.ir.body import Body
from archc.ir.values import Value
from archc.layers.kind import Mixer
from archc.ops.conv import causal_conv1d
from archc.ops.linear import linear_parts, out_linear
from archc.ops.pointwise import mul


@dataclass(frozen=True, kw_only=True)
class ShortConv(Mixer, keyword="short_conv"):
    """A causal convolution of a few tokens between two gates: `C * conv(B * x)` (LFM2, arXiv:2511.23404)."""

    d_conv: int = field(default=3, metadata={"doc": "width of the causal convolution"})
    bias: bool = field(default=False, metadata={"doc": "bias of in_proj and out_proj"})
    conv_bias: bool = field(default=False, metadata={"doc": "bias of the convolution"})

    def forward(self, b: Body, h: Value) -> Value:
        d_model = b.d_model
        B, C, x = linear_parts(b, "in_proj", h, to=(d_model, d_model, d_model), bias=self.bias)
        x = mul(b, B, x)
        x = causal_conv1d(b, "conv1d", x, b.axis("d_conv", self.d_conv), bias=self.conv_bias)
        y = mul(b, C, x)
        return out_linear(b, "out_proj", y, bias=self.bias)
