"""State space duality, the recurrence of Mamba-2. Source: Dao & Gu 2024, arXiv:2405.21060.

dt[t] = clamp(softplus(dt[t] + dt_bias), dt_limit)                      a scalar for each head
h[t]  = exp(dt[t] A) h[t-1] + (dt[t] x[t]) ⊗ B[t]      A = -exp(A_log), h [n_heads, d_head, d_state]
y[t]  = h[t] C[t] + D x[t]

Heads of one group share B and C: head i reads group i // (n_heads / n_groups).
"""

from __future__ import annotations

from dataclasses import dataclass

from archc.ir.body import Body
from archc.ir.op import Flops, Kernel, Op, Printer, Result
from archc.ir.size import Size, ceil_div, mul
from archc.ir.tape import Tape
from archc.ir.values import BATCH, TIME, Axis, Init, State, Value, Weight


def chunk_squares(chunk: int) -> Size:
    """The sum of the squared chunk lengths: T tokens in chunks of `chunk`, the last of which may be shorter."""
    full = TIME.symbol // chunk
    rest = TIME.symbol - full * chunk
    return full * (chunk * chunk) + mul(rest, rest)


def ssd_flops(n_heads: Size, d_head: Size, n_groups: Size, d_state: Size, chunk: int) -> Flops:
    """Model FLOPs by the recurrence, kernel FLOPs by the matrix products of its chunked form.

    Model, counted one by one as for the selective scan: per state (dt x)·B, a·h and their sum, C·h and its sum = 5;
    per channel dt·x, D·x and its sum = 3; per head dt·A and exp = 2. Bias, softplus and limits of dt are pointwise
    around the recurrence and count nothing, as they do in Mamba.

    Kernels, per sequence, over chunks of length L (a multiply-add is 2):
      forward   C Bᵀ  2 G L² N;  its product with dt x  2 H L² P;  the state read by C and written by B  2 (2 H L P N)
      backward  C Bᵀ again, its gradient to B and to C  3 (2 G L² N);  to dt x and to the decays  2 (2 H L² P);
                the state's reading and writing to both of their sides  4 (2 H L P N)
    Whole squares are counted, as matrix products of whole chunks run them. What is pointwise in a chunk counts nothing.
    """
    batch, tokens = BATCH.symbol, TIME.symbol
    model = mul(batch, tokens, n_heads, d_head * (5 * d_state + 3) + 2)
    squares = chunk_squares(chunk)
    scores = mul(2, batch, squares, n_groups, d_state)
    values = mul(2, batch, squares, n_heads, d_head)
    states = mul(2, batch, tokens, n_heads, d_head, d_state)
    return Flops(model, scores + values + 2 * states, 3 * scores + 2 * values + 4 * states)


FLOAT64_BYTES = 8


def kernels(d_head: int, d_state: int) -> bool:
    """Whether Triton kernels serve these sizes: powers of two from 64 on, whose state fits into registers."""
    return d_head >= 64 <= d_state and d_head * d_state in (4096, 8192, 16384) and not d_head & (d_head - 1)


@dataclass(frozen=True, kw_only=True)
class SSD(Op):
    """Inputs x `[B, T, H, P]`, dt `[B, T, H]`, B, C `[B, T, G, N]`; owns A_log, D and dt_bias `[H]`, kept in fp32.

    `dt_limit` are the bounds of dt behind the softplus, None where there is none. `chunk` is a length of computation:
    it decides about FLOPs and rounding, not about the function.
    """

    n_heads: Axis
    d_head: Axis
    n_groups: Axis
    d_state: Axis
    chunk: int
    dt_limit: tuple[float, float | None] = (0.0, None)

    def results(self, *inputs: Value) -> tuple[Result, ...]:
        return (Result(inputs[0].axes),)

    def weights(self) -> tuple[Weight, ...]:
        def per_head(name: str, init: Init) -> Weight:
            return Weight(name, (self.n_heads,), init, decay=False, keep_fp32=True)

        return (
            per_head("A_log", Init("A_log_uniform_", (1, 16))),
            per_head("D", Init("ones_")),
            per_head("dt_bias", Init("dt_bias_")),
        )

    def state(self) -> tuple[State, ...]:
        return (State("ssm", (self.n_heads, self.d_head, self.d_state), "ssm", "state"),)

    def flops(self, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> Flops:
        heads, groups = self.n_heads.symbol, self.n_groups.symbol
        return ssd_flops(heads, self.d_head.symbol, groups, self.d_state.symbol, self.chunk)

    def retain(self, tape: Tape, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> None:
        tape.keep(*inputs)
        tape.new(*outputs, product=True)
        states = mul(self.n_heads.symbol, self.d_head.symbol, self.d_state.symbol, tape.width())
        if tape.element == FLOAT64_BYTES or not kernels(self.d_head.size.value, self.d_state.size.value):
            # In the plain form; the kernels derive states again.
            tape.extra("states", mul(BATCH.symbol, ceil_div(TIME.symbol, self.chunk), states), product=True)
        tape.extra("final state", mul(BATCH.symbol, states), kept=False, product=True)

    @property
    def kernel(self) -> Kernel:
        low, high = self.dt_limit
        options: dict[str, int | bool | str] = {
            "n_heads": self.n_heads.size.value,
            "d_head": self.d_head.size.value,
            "n_groups": self.n_groups.size.value,
            "d_state": self.d_state.size.value,
            "chunk": self.chunk,
            "dt_min": repr(low),
            "dt_max": "inf" if high is None else repr(high),
        }
        sizes = f"h{options['n_heads']}_p{options['d_head']}_g{options['n_groups']}_n{options['d_state']}_c{self.chunk}"
        limits = "" if self.dt_limit == (0.0, None) else f"_dt{options['dt_min']}_{options['dt_max']}"
        return Kernel("ssd", options, sizes + limits.replace(".", "p").replace("-", "m"))

    def function(self, p: Printer) -> str:
        return p.kernel(self.kernel)

    def options(self, p: Printer) -> str:
        return f"positions={p.positions}, {p.held('ssm')}"

    def code(self, p: Printer) -> str:
        x, dt, B, C = p.inputs
        return f"{self.function(p)}({x}, {dt}, self.A_log, {B}, {C}, self.D, self.dt_bias, {self.options(p)})"

    @property
    def mixes_tokens(self) -> bool:
        return True

    @property
    def matmul(self) -> bool:
        return True

    @property
    def label(self) -> str:
        low, high = self.dt_limit
        bounds = [f"dt>={low!r}"] * (low != 0.0) + [f"dt<={high!r}"] * (high is not None)
        return " ".join(["ssd", f"chunk={self.chunk}", *bounds])


def ssd(
    b: Body,
    x: Value,
    dt: Value,
    B: Value,
    C: Value,
    *,
    chunk: int,
    dt_limit: tuple[float, float | None] = (0.0, None),
) -> Value:
    op = SSD(n_heads=x.axes[-2], d_head=x.width, n_groups=B.axes[-2], d_state=B.width, chunk=chunk, dt_limit=dt_limit)
    return b.one(op, x, dt, B, C)
