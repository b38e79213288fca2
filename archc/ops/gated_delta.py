"""The gated delta rule: each token replaces what the state holds along its key. Source: arXiv:2412.06464.

a[t] = exp(-exp(A_log) softplus(a[t] + dt_bias)),  b[t] = most sigmoid(b[t]),  q, k of length 1
S[t] = a[t] S[t-1] + k[t] (b[t] (v[t] - (a[t] S[t-1])ᵀ k[t]))ᵀ          S [d_head, d_head_v] for each head
y[t] = S[t]ᵀ q[t] / sqrt(d_head)

Heads of one group share q and k: head i reads group i // (n_heads / n_groups).
"""

from __future__ import annotations

from dataclasses import dataclass

from archc.ir.body import Body
from archc.ir.op import Flops, Op, Printer, Result
from archc.ir.size import Size, ceil_div, mul
from archc.ir.tape import Tape
from archc.ir.values import BATCH, TIME, Axis, Init, State, Value, Weight
from archc.ops.ssd import chunk_squares

CHUNK = 64  # tokens that the kernels compute at once, as `CHUNK` in the emitted gated_delta.py


def gated_delta_flops(n_heads: Size, d_head: Size, d_head_v: Size) -> Flops:
    """Model FLOPs by the recurrence, kernel FLOPs by the matrix products of its chunked form.

    Model, per head: of each state its fading (1), Sᵀk (2), the sum of what is written (2), Sᵀq (2); of each value the
    difference and the share (2). Gates, decays and lengths are pointwise around it and count nothing.

    Kernels, per head and chunk of L tokens; a multiply-add is 2, a solution of a triangular system L² V:
      forward   k kᵀ and q kᵀ  2 (2 L² K);  a system and a product  3 L² V;  with the state  3 (2 L K V)
      backward  these two and 4 of gradients  6 (2 L² K);  two systems, 3 products  8 L² V;  with the state  7 (2 L K V)
    """
    batch, tokens = BATCH.symbol, TIME.symbol
    squares, states = chunk_squares(CHUNK), mul(2, tokens, d_head, d_head_v)
    heads = mul(batch, n_heads)
    model = mul(heads, tokens, d_head_v, 7 * d_head + 2)
    forward = heads * (squares * (4 * d_head + 3 * d_head_v) + 3 * states)
    return Flops(model, forward, heads * (squares * (12 * d_head + 8 * d_head_v) + 7 * states))


@dataclass(frozen=True, kw_only=True)
class GatedDelta(Op):
    """Inputs q, k `[B, T, G, K]`, v `[B, T, H, V]`, b, a `[B, T, H]`; owns A_log and dt_bias `[H]`, kept in fp32."""

    n_heads: Axis
    d_head: Axis
    d_head_v: Axis
    most: int = 1

    def results(self, *inputs: Value) -> tuple[Result, ...]:
        return (Result(inputs[2].axes),)

    def weights(self) -> tuple[Weight, ...]:
        heads = (self.n_heads,)
        return (
            Weight("A_log", heads, Init("A_log_uniform_", (1, 16)), decay=False, keep_fp32=True),
            Weight("dt_bias", heads, Init("dt_bias_"), decay=False, keep_fp32=True),
        )

    def state(self) -> tuple[State, ...]:
        return (State("delta", (self.n_heads, self.d_head, self.d_head_v), "ssm", "state"),)

    def flops(self, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> Flops:
        return gated_delta_flops(self.n_heads.symbol, self.d_head.symbol, self.d_head_v.symbol)

    def retain(self, tape: Tape, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> None:
        tape.keep(*inputs)
        tape.new(*outputs, product=True)
        state = mul(BATCH.symbol, self.n_heads.symbol, self.d_head.symbol, self.d_head_v.symbol, tape.width())
        tape.extra("states", ceil_div(TIME.symbol, CHUNK) * state, product=True)
        tape.extra("final state", state, kept=False, product=True)

    def imports(self) -> tuple[tuple[str, str], ...]:
        return ((".gated_delta", "gated_delta_rule"),)

    def code(self, p: Printer) -> str:
        weights = f"{p.weight('A_log')}, {p.weight('dt_bias')}"
        most = "" if self.most == 1 else f"most={self.most}, "
        return f"gated_delta_rule({', '.join(p.inputs)}, {weights}, {most}positions={p.positions}, {p.held('delta')})"

    @property
    def mixes_tokens(self) -> bool:
        return True

    @property
    def matmul(self) -> bool:
        return True

    @property
    def label(self) -> str:
        return "gated_delta_rule" + ("" if self.most == 1 else f" most={self.most}")


def gated_delta_rule(b: Body, q: Value, k: Value, v: Value, beta: Value, decay: Value, *, most: int = 1) -> Value:
    op = GatedDelta(n_heads=v.axes[-2], d_head=q.width, d_head_v=v.width, most=most)
    return b.one(op, q, k, v, beta, decay)
