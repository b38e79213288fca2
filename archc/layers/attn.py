"""Causal softmax attention. Sources: arXiv:1706.03762, arXiv:2305.13245 (grouped heads), arXiv:2310.06825 (window)."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

from archc.ir.body import Body
from archc.ir.values import Axis, Value
from archc.layers.kind import Keys, Mixer, Norm, Problem
from archc.layers.parts import Conv, Heads, Lora, Rope
from archc.layers.words import divisors, either
from archc.ops.attention import attention, merge_heads, rope, split_heads
from archc.ops.attention_kv import attention_to, hand_on
from archc.ops.linear import linear, out_linear
from archc.ops.pointwise import activation, mul, scaled
from archc.ops.split import split


@dataclass(frozen=True, kw_only=True)
class Attention(Mixer, keyword="attn"):
    """Causal softmax attention with grouped key/value heads (arXiv:1706.03762, arXiv:2305.13245)."""

    heads: Heads = field(metadata={"doc": "query and key/value heads", "example": "gqa(32, 8)"})
    d_head: int | None = field(default=None, metadata={"doc": "width of a head; d_model / n_heads where that divides"})
    rope: Rope | None = field(default=None, metadata={"doc": "rotary positions"})
    window: int | None = field(
        default=None, metadata={"doc": "visible tokens, itself included; all unless given", "tokens": True}
    )
    bias: bool = field(default=False, metadata={"doc": "bias of the q, k and v projections"})
    out_bias: bool = field(default=False, metadata={"doc": "bias of the output projection"})
    qk_norm: Norm | None = field(default=None, metadata={"doc": "norm of each query and key head"})
    qk_norm_over: Literal["head", "heads"] = field(
        default="head", metadata={"doc": "heads norms all heads side by side as one, as OLMo 2 does"}
    )
    d_head_v: int | None = field(default=None, metadata={"doc": "width of a value head; d_head unless given"})
    out_gate: Literal["sigmoid", "silu"] | None = field(
        default=None, metadata={"doc": "function of a projection that multiplies the heads' output"}
    )
    k_scale: Fraction | None = field(default=None, metadata={"doc": "factor on the keys"})
    cap: Fraction | None = field(
        default=None, metadata={"doc": "soft cap of the scores: cap * tanh(scores / cap)", "above": 0}
    )
    lora: Lora | None = field(default=None, metadata={"doc": "low-rank adapters on q, k, v"})
    scale: Fraction | None = field(default=None, metadata={"doc": "of the scores; 1 / sqrt(d_head) unless given"})
    kv: Literal["prev"] | None = field(
        default=None,
        metadata={"doc": "prev attends to the keys and values of the nearest layer before that makes some"},
    )
    qkv_conv: Conv | None = field(default=None, metadata={"doc": "causal convolution over q, k and v, before rope"})

    def forward(self, b: Body, h: Value) -> Value:
        n_heads = b.axis("n_heads", self.heads.n_heads)
        n_kv_heads = b.axis("n_kv_heads", self.heads.n_kv)
        d_head = b.axis("d_head", self.head_width(b.d_model.size.value))
        d_head_v = d_head if self.d_head_v is None else b.axis("d_head_v", self.d_head_v)
        q, k, v = self._projected(b, h, n_heads, n_kv_heads, d_head, d_head_v)
        if self.qk_norm is not None and self.qk_norm_over == "head":
            q = self.qk_norm.apply(b, "q_norm", q)
            k = k and self.qk_norm.apply(b, "k_norm", k)
        if self.rope is not None:
            q = rope(b, q, float(self.rope.theta), self.rope.dims)
            k = k and rope(b, k, float(self.rope.theta), self.rope.dims)
        scale = d_head.size.value**-0.5 if self.scale is None else float(self.scale)
        cap = None if self.cap is None else float(self.cap)
        if k is None or v is None:
            y = attention_to(b, q, kv_heads=n_kv_heads, d_head_v=d_head_v, scale=scale, window=self.window, cap=cap)
        else:
            k = k if self.k_scale is None else scaled(b, k, float(self.k_scale))
            hand_on(b, k, v, self.window)
            y = attention(b, q, k, v, scale=scale, window=self.window, cap=cap)
        y = merge_heads(b, y)
        if self.out_gate is not None:
            gate = linear(b, "gate_proj", h, to=y.width, bias=self.bias)
            y = mul(b, y, activation(b, self.out_gate, gate))
        return out_linear(b, "o_proj", y, bias=self.out_bias)

    def _projected(
        self, b: Body, h: Value, n_heads: Axis, n_kv_heads: Axis, d_head: Axis, d_head_v: Axis
    ) -> tuple[Value, Value | None, Value | None]:
        """q, k and v in heads; q alone where those of an earlier layer are reused."""
        d_q = b.axis("n_heads*d_head", n_heads.symbol * d_head.symbol)
        d_k = b.axis("n_kv_heads*d_head", n_kv_heads.symbol * d_head.symbol)
        d_v = b.axis(f"n_kv_heads*{d_head_v}", n_kv_heads.symbol * d_head_v.symbol)
        if self.kv == "prev":
            q = linear(b, "q_proj", h, to=d_q, bias=self.bias)
            if self.lora is not None:
                (q,) = self.lora.adapt(b, h, q=(q,))
            return split_heads(b, self._normed(b, "q_norm", q), n_heads, d_head), None, None
        if self.qkv_conv is None:
            q = linear(b, "q_proj", h, to=d_q, bias=self.bias)
            k = linear(b, "k_proj", h, to=d_k, bias=self.bias)
            v = linear(b, "v_proj", h, to=d_v, bias=self.bias)
            if self.lora is not None:
                q, k, v = self.lora.adapt(b, h, q=(q,), k=(k,), v=(v,))
        else:  # over one tensor, so one projection
            qkv = linear(b, "qkv_proj", h, to=b.axis("d_qkv", d_q.symbol + d_k.symbol + d_v.symbol), bias=self.bias)
            if self.lora is not None:
                (qkv,) = self.lora.adapt(b, h, qkv=(qkv,))
            qkv = self.qkv_conv.apply(b, "qkv_conv", qkv)
            q, k, v = split(b, qkv, to=(d_q, d_k, d_v))
        q = split_heads(b, self._normed(b, "q_norm", q), n_heads, d_head)
        k = split_heads(b, self._normed(b, "k_norm", k), n_kv_heads, d_head)
        v = split_heads(b, v, n_kv_heads, d_head_v)
        return q, k, v

    def _normed(self, b: Body, path: str, x: Value) -> Value:
        """All heads side by side, normed as one if that is wanted."""
        return self.qk_norm.apply(b, path, x) if self.qk_norm is not None and self.qk_norm_over == "heads" else x

    @property
    def adaptable(self) -> tuple[str, ...]:
        if self.kv == "prev":
            return ("q",)
        return ("q", "k", "v") if self.qkv_conv is None else ("qkv",)

    def keys(self, d_model: int) -> Keys | None:
        return None if self.kv == "prev" else self._keys(d_model)

    def reused_keys(self, d_model: int) -> Keys | None:
        return self._keys(d_model) if self.kv == "prev" else None

    def _keys(self, d_model: int) -> Keys:
        d_head = self.head_width(d_model)
        return Keys(self.heads.n_kv, d_head, self.d_head_v or d_head, self.window)

    def head_width(self, d_model: int) -> int:
        return d_model // self.heads.n_heads if self.d_head is None else self.d_head

    def problems(self, d_model: int) -> list[Problem]:
        return [
            *self._head_problems(d_model),
            *self._rope_problems(d_model),
            *self._adapter_problems(),
            *self._reuse_problems(),
        ]

    def _head_problems(self, d_model: int) -> list[Problem]:
        n_heads, n_kv = self.heads.n_heads, self.heads.n_kv
        found = []
        if n_heads % n_kv:
            message = f"{n_heads} query heads cannot share {n_kv} key/value heads"
            label, hint = f"does not divide {n_heads}", f"n_kv_heads may be {either(divisors(n_heads, n_kv))}"
            found.append(Problem("uneven-heads", message, ("heads.n_kv_heads", "heads.n_heads"), label, hint))
        if self.d_head is None and d_model % n_heads:
            message = f"the width of a head is not given, and {n_heads} heads do not divide a d_model of {d_model}"
            hint = f"give the width, as d_head=128; or n_heads may be {either(divisors(d_model, n_heads))}"
            because = (("spec.d_model", f"not a multiple of {n_heads}"),)
            found.append(Problem("unknown-head-width", message, ("heads.n_heads",), "", hint, because))
        return found

    def _rope_problems(self, d_model: int) -> list[Problem]:
        if self.rope is None or (self.d_head is None and d_model % self.heads.n_heads):
            return []
        width = self.head_width(d_model)
        dims = width if self.rope.dims is None else self.rope.dims
        origin = f"d_model / n_heads = {width}" if self.d_head is None else f"a head has {width}"
        because = (("heads.n_heads" if self.d_head is None else "d_head", origin),)
        hint = f"dims may be an even number up to {width // 2 * 2}" if width > 1 else "rope none leaves the heads alone"
        if dims > width:
            message = f"rope cannot rotate {dims} dimensions of a head of {width}"
            return [Problem("rope-too-wide", message, ("rope.dims",), "more than there are", hint, because)]
        if dims % 2:
            message = f"rope rotates pairs of dimensions, and {dims} is odd"
            fields = ("rope",) if self.rope.dims is None else ("rope.dims",)
            return [Problem("odd-rope", message, fields, "", hint, because)]
        return []

    def _adapter_problems(self) -> list[Problem]:
        return [] if self.lora is None else self.lora.problems(self.keyword, self.adaptable)

    def _reuse_problems(self) -> list[Problem]:
        """Fields of keys and values say nothing in a layer that makes none."""
        said = [name for name in ("k_scale", "qkv_conv") if self.kv == "prev" and getattr(self, name) is not None]
        message = f"with kv=prev a layer makes no keys and values, so `{said[0]}` says nothing" if said else ""
        return [Problem("unused-field", message, (said[0], "kv"), "", "leave it out")] if said else []
