"""Gated DeltaNet: linear attention whose state forgets by a gate and is corrected by the delta rule.

Sources: Yang, Kautz & Hatamizadeh 2024, arXiv:2412.06464; the delta rule without a gate, arXiv:2406.06484.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from archc.ir.body import Body
from archc.ir.values import Value
from archc.layers.kind import Mixer, Problem
from archc.layers.parts import RMS
from archc.layers.words import divisors, either
from archc.ops.attention import merge_heads, split_heads
from archc.ops.conv import causal_conv1d
from archc.ops.gated_delta import gated_delta_rule
from archc.ops.linear import linear_parts, out_linear
from archc.ops.pointwise import silu
from archc.ops.split import split


@dataclass(frozen=True, kw_only=True)
class GatedDeltaNet(Mixer, keyword="gated_delta"):
    """Gated DeltaNet: each token corrects what the state holds along its key (arXiv:2412.06464)."""

    n_heads: int = field(metadata={"doc": "value heads", "example": "n_heads=32"})
    n_k_heads: int | None = field(default=None, metadata={"doc": "query and key heads; n_heads unless given"})
    d_head: int = field(default=128, metadata={"doc": "width of a query or key head"})
    d_head_v: int | None = field(default=None, metadata={"doc": "width of a value head; d_head unless given"})
    d_conv: int = field(default=4, metadata={"doc": "width of the causal convolution over q, k and v"})
    conv_bias: bool = field(default=False, metadata={"doc": "bias of the convolution"})
    negative: bool = field(
        default=False, metadata={"doc": "writes up to twice a value, so that states may turn round (arXiv:2411.12537)"}
    )
    norm: RMS = field(default=RMS(), metadata={"doc": "norm of each head, before its gate"})

    def forward(self, b: Body, h: Value) -> Value:
        n_heads, n_k_heads = b.axis("n_heads", self.n_heads), b.axis("n_k_heads", self.n_k_heads or self.n_heads)
        d_head, d_head_v = b.axis("d_head", self.d_head), b.axis("d_head_v", self.d_head_v or self.d_head)
        d_k = b.axis("n_k_heads*d_head", n_k_heads.symbol * d_head.symbol)
        d_v = b.axis("n_heads*d_head_v", n_heads.symbol * d_head_v.symbol)
        d_qkv = b.axis("d_qkv", 2 * d_k.symbol + d_v.symbol)
        qkv, z, beta, decay = linear_parts(b, "in_proj", h, to=(d_qkv, d_v, n_heads, n_heads))
        qkv = causal_conv1d(b, "conv1d", qkv, b.axis("d_conv", self.d_conv), bias=self.conv_bias)
        qkv = silu(b, qkv)
        q, k, v = split(b, qkv, to=(d_k, d_k, d_v))
        q, k = split_heads(b, q, n_k_heads, d_head), split_heads(b, k, n_k_heads, d_head)
        v, z = split_heads(b, v, n_heads, d_head_v), split_heads(b, z, n_heads, d_head_v)
        y = gated_delta_rule(b, q, k, v, beta, decay, most=2 if self.negative else 1)
        y = self.norm.gated(b, "norm", y, z, norm_before_gate=True)
        y = merge_heads(b, y)
        return out_linear(b, "out_proj", y)

    def problems(self, d_model: int) -> list[Problem]:
        if self.n_k_heads is None or self.n_heads % self.n_k_heads == 0:
            return []
        message = f"{self.n_heads} value heads cannot share {self.n_k_heads} key heads"
        hint = f"n_k_heads may be {either(divisors(self.n_heads, self.n_k_heads))}"
        return [Problem("uneven-heads", message, ("n_k_heads", "n_heads"), f"does not divide {self.n_heads}", hint)]
