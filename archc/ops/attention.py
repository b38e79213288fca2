"""Causal softmax attention with grouped heads, and rotary positions.

Sources: Vaswani et al. 2017, arXiv:1706.03762; grouped queries, arXiv:2305.13245; rotary, arXiv:2104.09864.
"""

from __future__ import annotations

from dataclasses import dataclass

from archc.ir.body import Body
from archc.ir.op import Flops, Op, Printer, Result
from archc.ir.size import ZERO, Const, Size, Symbol, maximum, minimum, mul
from archc.ir.tape import FP32_BYTES, Tape
from archc.ir.values import BATCH, TIME, Axis, State, Value, numel

STATE = (".attention", "AttentionState")
PAST = Symbol("P")  # tokens of the sequence that came before these T
CONTEXT = Symbol("context")  # tokens that a cache must hold


def causal_pairs(window: int | None) -> Size:
    """(query, key) pairs of T new tokens after P earlier ones, each token seeing itself and what came before."""
    T = TIME.symbol
    if window is None:
        return mul(T, PAST) + mul(T, T + 1) // 2
    growing = minimum(T, maximum(Const(window) - PAST, 0))  # tokens that still see fewer than the window
    return mul(growing, PAST) + mul(growing, growing + 1) // 2 + mul(T - growing, window)


@dataclass(frozen=True, kw_only=True)
class SplitHeads(Op):
    """`[B, T, heads x width] -> [B, T, heads, width]`."""

    heads: Axis
    width: Axis

    def results(self, *inputs: Value) -> tuple[Result, ...]:
        return (Result((*inputs[0].axes[:-1], self.heads, self.width)),)

    def code(self, p: Printer) -> str:
        return f"torch.unflatten({p.inputs[0]}, -1, ({self.heads.size.value}, {self.width.size.value}))"

    @property
    def is_view(self) -> bool:
        return True

    @property
    def label(self) -> str:
        return f"split_heads {self.heads.size.value}x{self.width.size.value}"


@dataclass(frozen=True, kw_only=True)
class MergeHeads(Op):
    """`[B, T, heads, width] -> [B, T, heads x width]`."""

    def results(self, *inputs: Value) -> tuple[Result, ...]:
        *lead, heads, width = inputs[0].axes
        return (Result((*lead, Axis(f"{heads.name}*{width.name}", mul(heads.symbol, width.symbol)))),)

    def code(self, p: Printer) -> str:
        return f"{p.inputs[0]}.flatten(-2)"

    @property
    def is_view(self) -> bool:
        return True

    @property
    def label(self) -> str:
        return "merge_heads"


@dataclass(frozen=True, kw_only=True)
class Rope(Op):
    """Rotary positions on the first `dims` of each head, halves rotated."""

    theta: float
    dims: int | None

    def results(self, *inputs: Value) -> tuple[Result, ...]:
        return (Result(inputs[0].axes),)

    def retain(self, tape: Tape, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> None:
        """Nothing is read: the gradient is turned back."""
        tape.new(*outputs, wide=tape.wide(*inputs))

    def imports(self) -> tuple[tuple[str, str], ...]:
        return ((".rotary", "rope"),)

    def code(self, p: Printer) -> str:
        dims = "" if self.dims is None else f", dims={self.dims}"
        return f"rope({p.inputs[0]}, {p.positions}, theta={self.theta!r}{dims})"

    @property
    def positional(self) -> bool:
        return True

    @property
    def label(self) -> str:
        return f"rope theta={self.theta!r}" + ("" if self.dims is None else f" dims={self.dims}")


@dataclass(frozen=True, kw_only=True)
class Attention(Op):
    """`softmax(scale q kᵀ) v` over the visible tokens. A window of W shows W tokens, itself included."""

    scale: float
    kv_heads: Axis
    d_head: Axis
    d_head_v: Axis
    window: int | None = None
    cap: float | None = None  # scores s are cap * tanh(s / cap)

    def results(self, *inputs: Value) -> tuple[Result, ...]:
        return (Result((*inputs[0].axes[:-1], self.d_head_v)),)

    def state(self) -> tuple[State, ...]:
        """Keys (rotated) and values of the tokens that can still be seen."""
        tokens = Axis("tokens", CONTEXT if self.window is None else minimum(CONTEXT, self.window))
        return (
            State("kv.k", (tokens, self.kv_heads, self.d_head), "kv", "kv", STATE),
            State("kv.v", (tokens, self.kv_heads, self.d_head_v), "kv", "kv", STATE),
        )

    def flops(self, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> Flops:
        """Two matrix products forward (q kᵀ, p v), five backward (q kᵀ again, dv, dp, dq, dk)."""
        pairs = mul(BATCH.symbol, inputs[0].axes[-2].symbol, causal_pairs(self.window))
        forward = mul(BATCH.symbol, causal_pairs(self.window), self.pair_flops(inputs, outputs))
        backward = mul(2, pairs, 3 * self.d_head.symbol + 2 * self.d_head_v.symbol)
        return Flops(forward, forward, backward)

    def retain(self, tape: Tape, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> None:
        rows = numel(inputs[0].axes[:-1])
        tape.new(*outputs, product=True)
        tape.keep(*inputs, *outputs)
        tape.extra("log-sum-exp", mul(rows, tape.width()), product=True)

    def imports(self) -> tuple[tuple[str, str], ...]:
        return ((".attention", "attention"),)

    def code(self, p: Printer) -> str:
        return f"attention({', '.join(p.inputs)}, {self.options}, positions={p.positions}, {p.held('kv')})"

    @property
    def options(self) -> str:
        options = {"scale": self.scale, "window": self.window, "cap": self.cap}
        return ", ".join(f"{name}={value!r}" for name, value in options.items() if value is not None)

    def workspace(self, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> tuple[Size, Size]:
        """FlashAttention-2 adds the gradient of q up in fp32 (arXiv:2307.08691, algorithm 2)."""
        return ZERO, mul(FP32_BYTES, numel(inputs[0].axes))

    @property
    def mixes_tokens(self) -> bool:
        return True

    def pair_flops(self, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> Size:
        return mul(2, inputs[0].axes[-2].symbol, self.d_head.symbol + self.d_head_v.symbol)

    @property
    def matmul(self) -> bool:
        return True

    @property
    def label(self) -> str:
        return f"attention {self.options.replace(',', '')}"


def split_heads(b: Body, x: Value, heads: Axis, width: Axis) -> Value:
    return b.one(SplitHeads(heads=heads, width=width), x)


def merge_heads(b: Body, x: Value) -> Value:
    return b.one(MergeHeads(), x)


def rope(b: Body, x: Value, theta: float, dims: int | None = None) -> Value:
    return b.one(Rope(theta=theta, dims=dims), x)


def attention(
    b: Body, q: Value, k: Value, v: Value, *, scale: float, window: int | None = None, cap: float | None = None
) -> Value:
    op = Attention(scale=scale, window=window, cap=cap, kv_heads=k.axes[-2], d_head=k.width, d_head_v=v.width)
    return b.one(op, q, k, v)
