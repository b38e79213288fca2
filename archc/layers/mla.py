"""Multi-head latent attention. Source: DeepSeek-V2, arXiv:2405.04434."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

from archc.ir.body import Body
from archc.ir.values import Axis, Value, constant_axis
from archc.layers.kind import Mixer, Norm, Problem
from archc.layers.parts import RMS, Rope
from archc.ops.attention import merge_heads, rope, split_heads
from archc.ops.latent_attention import latent_attention
from archc.ops.linear import linear, linear_parts, out_linear
from archc.ops.split import split


@dataclass(frozen=True, kw_only=True)
class LatentAttention(Mixer, keyword="mla"):
    """Attention whose keys and values are projections of one narrow latent, all that is cached (arXiv:2405.04434)."""

    n_heads: int = field(metadata={"doc": "heads", "example": "n_heads=128"})
    kv_rank: int = field(default=512, metadata={"doc": "width of the latent that keys and values are made of"})
    q_rank: int | None = field(
        default=None, metadata={"doc": "width of the queries' latent; one projection unless given"}
    )
    d_head: int = field(default=128, metadata={"doc": "width of a head's part without positions"})
    d_rope: int = field(default=64, metadata={"doc": "width of its part with positions, whose key all heads share"})
    d_head_v: int = field(default=128, metadata={"doc": "width of a value head"})
    rope: Rope | None = field(default=Rope(), metadata={"doc": "rotary positions of that part"})
    norm: Norm | None = field(default=RMS(), metadata={"doc": "norm of the latents"})
    bias: bool = field(default=False, metadata={"doc": "bias of the projections to the latents, and of the output"})
    scale: Fraction | None = field(
        default=None, metadata={"doc": "of the scores; 1 / sqrt(d_head + d_rope) unless given"}
    )

    def forward(self, b: Body, h: Value) -> Value:
        n_heads, one = b.axis("n_heads", self.n_heads), constant_axis("1", 1)
        d_head, d_rope = b.axis("d_head", self.d_head), b.axis("d_rope", self.d_rope)
        q = self._queries(b, h, n_heads, b.axis("d_qk", d_head.symbol + d_rope.symbol))
        q_nope, q_rope = split(b, q, to=(d_head, d_rope))
        c, k_rope = linear_parts(b, "kv_a_proj", h, to=(b.axis("kv_rank", self.kv_rank), d_rope), bias=self.bias)
        if self.norm is not None:
            c = self.norm.apply(b, "kv_a_norm", c)
        k_rope = split_heads(b, k_rope, one, d_rope)
        if self.rope is not None:
            q_rope = rope(b, q_rope, float(self.rope.theta), self.rope.dims)
            k_rope = rope(b, k_rope, float(self.rope.theta), self.rope.dims)
        scale = (self.d_head + self.d_rope) ** -0.5 if self.scale is None else float(self.scale)
        d_head_v = b.axis("d_head_v", self.d_head_v)
        y = latent_attention(b, "kv_b_proj", q_nope, q_rope, c, k_rope, d_head_v=d_head_v, scale=scale)
        y = merge_heads(b, y)
        return out_linear(b, "o_proj", y, bias=self.bias)

    def _queries(self, b: Body, h: Value, n_heads: Axis, d_qk: Axis) -> Value:
        width = b.axis("n_heads*d_qk", n_heads.symbol * d_qk.symbol)
        if self.q_rank is None:
            q = linear(b, "q_proj", h, to=width)
        else:
            q = linear(b, "q_a_proj", h, to=b.axis("q_rank", self.q_rank), bias=self.bias)
            if self.norm is not None:
                q = self.norm.apply(b, "q_a_norm", q)
            q = linear(b, "q_b_proj", q, to=width)
        return split_heads(b, q, n_heads, d_qk)

    def problems(self, d_model: int) -> list[Problem]:
        if self.rope is None:
            return []
        dims = self.d_rope if self.rope.dims is None else self.rope.dims
        where = ("rope.dims",) if self.rope.dims is not None else ("d_rope",)
        if dims > self.d_rope:
            message = f"rope cannot rotate {dims} dimensions of {self.d_rope}"
            return [Problem("rope-too-wide", message, where, "more than there are", "d_rope bounds them")]
        if dims % 2:
            return [Problem("odd-rope", f"rope rotates pairs of dimensions, and {dims} is odd", where)]
        return []
