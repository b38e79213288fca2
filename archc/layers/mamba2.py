"""Mamba-2: a state-space mixer of heads with a scalar decay each.

Sources: Dao & Gu 2024, arXiv:2405.21060; groups, limits and the order of norm and gate as in state-spaces/mamba.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

from archc.ir.body import Body
from archc.ir.values import Value
from archc.layers.kind import Mixer, Part, Problem
from archc.layers.parts import RMS
from archc.layers.words import divisors, either
from archc.ops.attention import merge_heads, split_heads
from archc.ops.conv import causal_conv1d
from archc.ops.linear import linear_parts, out_linear
from archc.ops.pointwise import concat, mul, scaled, silu
from archc.ops.repeat_heads import repeat_heads
from archc.ops.split import split
from archc.ops.ssd import ssd

# What each head has for itself; the rest belongs to groups of heads (arXiv:2405.21060, section 7.2).
OWN = {"multi_input": "x", "multi_contract": "C", "multi_expand": "B", "multi_head": "xBC"}


@dataclass(frozen=True, kw_only=True)
class DtLimit(Part, keyword="dt_limit"):
    """Bounds of the step size dt behind its softplus: `dt_limit(0.001, 0.1)`."""

    min: Fraction = field(default=Fraction(0), metadata={"doc": "least dt"})
    max: Fraction | None = field(default=None, metadata={"doc": "greatest dt; no bound unless given"})


@dataclass(frozen=True, kw_only=True)
class PartScales(Part, keyword="parts"):
    """Constant factors on what in_proj gives: `parts(z=0.35, dt=0.5)` (Falcon-H1, arXiv:2507.22448)."""

    z: Fraction = field(default=Fraction(1), metadata={"doc": "factor on the gate"})
    x: Fraction = field(default=Fraction(1), metadata={"doc": "factor on x"})
    B: Fraction = field(default=Fraction(1), metadata={"doc": "factor on B"})
    C: Fraction = field(default=Fraction(1), metadata={"doc": "factor on C"})
    dt: Fraction = field(default=Fraction(1), metadata={"doc": "factor on dt"})


@dataclass(frozen=True, kw_only=True)
class Mamba2(Mixer, keyword="mamba2"):
    """Mamba-2: a state-space mixer of heads with a scalar decay each (Dao & Gu 2024, arXiv:2405.21060)."""

    n_heads: int | None = field(default=None, metadata={"doc": "heads; expand * d_model / d_head if expand is given"})
    d_head: int = field(default=64, metadata={"doc": "width of a head; the inner width is n_heads * d_head"})
    d_state: int = field(default=128, metadata={"doc": "state per channel"})
    n_groups: int = field(default=1, metadata={"doc": "groups of heads that share B and C, and are normed together"})
    pattern: Literal["multi_input", "multi_contract", "multi_expand", "multi_head"] = field(
        default="multi_input", metadata={"doc": "what each head has for itself: x, C, B or all; groups share the rest"}
    )
    d_conv: int = field(default=4, metadata={"doc": "width of the causal convolution over x, B and C"})
    expand: int | None = field(default=None, metadata={"doc": "inner width / d_model; n_heads says the same"})
    norm: RMS | None = field(default=RMS(), metadata={"doc": "gated norm before out_proj; none leaves the gate alone"})
    norm_before_gate: bool = field(default=False, metadata={"doc": "norm(y) * silu(z), not norm(y * silu(z))"})
    conv_bias: bool = field(default=True, metadata={"doc": "bias of the convolution"})
    bias: bool = field(default=False, metadata={"doc": "bias of in_proj and out_proj"})
    dt_limit: DtLimit | None = field(default=None, metadata={"doc": "bounds of dt behind its softplus"})
    scales: PartScales | None = field(default=None, metadata={"doc": "factors on what in_proj gives"})
    chunk: int = field(default=256, metadata={"doc": "tokens that are computed at once; not part of the function"})

    def forward(self, b: Body, h: Value) -> Value:
        n_heads = b.axis("n_heads", self.head_count(b.d_model.size.value))
        d_head = b.axis("d_head", self.d_head)
        n_groups, d_state = b.axis("n_groups", self.n_groups), b.axis("d_state", self.d_state)
        d_inner = b.axis("d_inner", n_heads.symbol * d_head.symbol)
        n_x, n_B, n_C = (n_heads if part in OWN[self.pattern] else n_groups for part in "xBC")
        d_x = d_inner if n_x is n_heads else b.axis("n_groups*d_head", n_groups.symbol * d_head.symbol)
        d_B, d_C = (b.axis(f"{n}*d_state", n.symbol * d_state.symbol) for n in (n_B, n_C))
        d_xBC = b.axis("d_xBC", d_x.symbol + d_B.symbol + d_C.symbol)
        z, xBC, dt = linear_parts(b, "in_proj", h, to=(d_inner, d_xBC, n_heads), bias=self.bias)
        if self.scales is not None:
            z, dt = scaled(b, z, float(self.scales.z)), scaled(b, dt, float(self.scales.dt))
            x, B, C = split(b, xBC, to=(d_x, d_B, d_C))
            factors = (self.scales.x, self.scales.B, self.scales.C)
            xBC = concat(b, *(scaled(b, part, float(by)) for part, by in zip((x, B, C), factors, strict=True)))
        xBC = causal_conv1d(b, "conv1d", xBC, b.axis("d_conv", self.d_conv), bias=self.conv_bias)
        xBC = silu(b, xBC)
        x, B, C = split(b, xBC, to=(d_x, d_B, d_C))
        x = split_heads(b, x, n_x, d_head)
        B = split_heads(b, B, n_B, d_state)
        C = split_heads(b, C, n_C, d_state)
        if self.pattern != "multi_input":
            x, B, C = (repeat_heads(b, value, n_heads) for value in (x, B, C))
        y = ssd(b, x, dt, B, C, chunk=self.chunk, dt_limit=self.limits)
        y = merge_heads(b, y)
        if self.norm is None:
            y = mul(b, y, silu(b, z))
        else:
            before = self.norm_before_gate
            y = self.norm.gated(b, "norm", y, z, groups=self.n_groups, norm_before_gate=before)
        return out_linear(b, "out_proj", y, bias=self.bias)

    @property
    def limits(self) -> tuple[float, float | None]:
        if self.dt_limit is None:
            return (0.0, None)
        return float(self.dt_limit.min), None if self.dt_limit.max is None else float(self.dt_limit.max)

    def head_count(self, d_model: int) -> int:
        """As given, else what `expand` says; at least 1, so that a layer with problems can be drawn."""
        return self.n_heads or max(1, (self.expand or 1) * d_model // self.d_head)

    def problems(self, d_model: int) -> list[Problem]:
        return self._width_problems(d_model) or [*self._group_problems(d_model), *self._option_problems()]

    def _width_problems(self, d_model: int) -> list[Problem]:
        if self.expand is None:
            if self.n_heads is not None:
                return []
            message = "`mamba2` needs `n_heads`: its inner width is n_heads * d_head"
            return [Problem("missing-field", message, (), "", "add for example n_heads=32, or expand=2")]
        wanted = self.expand * d_model
        if self.n_heads is None and wanted % self.d_head:
            message = f"an inner width of {self.expand} * {d_model} = {wanted} has no whole number of heads"
            hint = f"give n_heads; or d_head may be {either(divisors(wanted, self.d_head))}"
            because = (("expand", ""), ("spec.d_model", f"{self.expand} times this is {wanted}"))
            return [Problem("uneven-inner-width", message, ("d_head",), f"does not divide {wanted}", hint, because)]
        if self.n_heads is not None and self.n_heads * self.d_head != wanted:
            given = self.n_heads * self.d_head
            message = f"n_heads * d_head is {given}, and expand * d_model is {wanted}"
            hint, because = "keep one of the two", (("n_heads", f"says {given}"), ("spec.d_model", ""))
            return [Problem("two-inner-widths", message, ("expand",), f"says {wanted}", hint, because)]
        return []

    def _group_problems(self, d_model: int) -> list[Problem]:
        n_heads = self.head_count(d_model)
        if n_heads % self.n_groups == 0:
            return []
        message = f"{n_heads} heads do not divide into {self.n_groups} groups"
        hint = f"n_groups may be {either(divisors(n_heads, self.n_groups))}"
        return [Problem("uneven-groups", message, ("n_groups", "n_heads"), f"does not divide {n_heads}", hint)]

    def _option_problems(self) -> list[Problem]:
        found = []
        if self.norm is None and self.norm_before_gate:
            message = "`norm_before_gate` orders a norm and a gate, and there is no norm"
            because = (("norm", "switched off here"),)
            found.append(Problem("order-without-norm", message, ("norm_before_gate",), "", "leave it out", because))
        limit = self.dt_limit
        if limit is not None and limit.max is not None and limit.max < limit.min:
            message = f"dt cannot be at least {float(limit.min):g} and at most {float(limit.max):g}"
            hint = "write dt_limit(least, greatest)"
            found.append(Problem("empty-dt-limit", message, ("dt_limit.max", "dt_limit.min"), "below the least", hint))
        if limit is not None and limit.min < 0:
            message = "dt is never negative, so a limit below 0 says nothing"
            found.append(Problem("empty-dt-limit", message, ("dt_limit.min",), "", "leave it out, or write 0"))
        return found
