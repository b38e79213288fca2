"""Linear attention: causal attention without a softmax, a recurrence with a matrix for its state.

Sources: Katharopoulos et al. 2020, arXiv:2006.16236; without the normaliser, Schlag et al. 2021, arXiv:2102.11174.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

from archc.ir.body import Body
from archc.ir.values import Value
from archc.layers.kind import Mixer, Problem
from archc.layers.words import divisors, either
from archc.ops.attention import merge_heads, split_heads
from archc.ops.linear import linear, out_linear
from archc.ops.linear_attention import feature, linear_attention


@dataclass(frozen=True, kw_only=True)
class LinearAttn(Mixer, keyword="linear_attn"):
    """Linear attention: causal attention without a softmax (Katharopoulos et al. 2020, arXiv:2006.16236)."""

    n_heads: int = field(metadata={"doc": "heads", "example": "8"})
    d_head: int | None = field(default=None, metadata={"doc": "width of a head; d_model / n_heads where that divides"})
    feature: Literal["elu", "relu", "silu", "softmax"] | None = field(
        default="elu",
        metadata={"doc": "of queries and keys: elu is elu(x) + 1, softmax is over the head; none is itself"},
    )
    normalise: bool = field(default=True, metadata={"doc": "divide by the sum of the weights"})
    eps: Fraction = field(default=Fraction(1, 1_000_000), metadata={"doc": "added to that sum"})
    bias: bool = field(default=False, metadata={"doc": "bias of the q, k and v projections"})
    out_bias: bool = field(default=False, metadata={"doc": "bias of the output projection"})
    chunk: int = field(default=256, metadata={"doc": "tokens that are computed at once; not part of the function"})

    def forward(self, b: Body, h: Value) -> Value:
        n_heads = b.axis("n_heads", self.n_heads)
        d_head = b.axis("d_head", self.d_head or max(1, b.d_model.size.value // self.n_heads))
        width = b.axis("n_heads*d_head", n_heads.symbol * d_head.symbol)
        q = linear(b, "q_proj", h, to=width, bias=self.bias)
        k = linear(b, "k_proj", h, to=width, bias=self.bias)
        v = linear(b, "v_proj", h, to=width, bias=self.bias)
        q = feature(b, self.feature, split_heads(b, q, n_heads, d_head))
        k = feature(b, self.feature, split_heads(b, k, n_heads, d_head))
        v = split_heads(b, v, n_heads, d_head)
        y = linear_attention(b, q, k, v, chunk=self.chunk, eps=float(self.eps) if self.normalise else None)
        y = merge_heads(b, y)
        return out_linear(b, "o_proj", y, bias=self.out_bias)

    def problems(self, d_model: int) -> list[Problem]:
        if self.d_head is not None or d_model % self.n_heads == 0:
            return []
        message = f"the width of a head is not given, and {self.n_heads} heads do not divide a d_model of {d_model}"
        hint = f"give the width, as d_head=128; or n_heads may be {either(divisors(d_model, self.n_heads))}"
        because = (("spec.d_model", f"not a multiple of {self.n_heads}"),)
        return [Problem("unknown-head-width", message, ("n_heads",), "", hint, because)]
