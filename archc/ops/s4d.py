"""The diagonal state space of S4D, which does not change with time. Source: Gu et al. 2022, arXiv:2206.11893.

A = -exp(A_log) + i A_imag,  dt = exp(log_dt)
s[t] = Ā s[t-1] + B̄ x[t]          a complex state [d_state / 2] for each channel; Ā and B̄ from A and dt, B = 1
y[t] = 2 Re(C · s[t]) + D x[t]

A sequence is a convolution with a kernel of its own length, by FFT; a token of decoding is the recurrence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from archc.ir.body import Body
from archc.ir.op import Flops, Op, Printer, Result
from archc.ir.size import NOTHING, Size, mul
from archc.ir.tape import Tape
from archc.ir.values import BATCH, TIME, Axis, Init, State, Value, Weight, constant_axis

Rule = Literal["zoh", "bilinear"]
START = {"lin": "A_linear_", "inv": "A_inverse_"}
DT = (0.001, 0.1)  # range of the first step sizes (arXiv:2206.11893, section 5)


@dataclass(frozen=True, slots=True)
class Log2(Size):
    """The least k with `2**k >= size`."""

    size: Size

    def at(self, bindings: Mapping[str, int] = NOTHING) -> int:
        return (self.size.at(bindings) - 1).bit_length()

    def __str__(self) -> str:
        return f"({self.size} - 1).bit_length()"


@dataclass(frozen=True, slots=True)
class PowerOfTwo(Size):
    """`2**exponent`."""

    exponent: Size

    def at(self, bindings: Mapping[str, int] = NOTHING) -> int:
        return int(1 << self.exponent.at(bindings))

    def __str__(self) -> str:
        return f"(1 << {self.exponent._inside(3)})"


def s4d_flops(channels: Size, pairs: Size) -> Flops:
    """Model FLOPs by the recurrence, kernel FLOPs by the transforms and the products that make the kernel.

    Model, counted one by one: per complex state Ā s (6), the input's sum (1), the real part of C s (3) and its sum (1)
    = 11; per channel the factor 2, D x and their sum = 3. Discretisation is once for all tokens and counts nothing.

    Kernels, for T tokens padded to a power of two, transforms of n = 2 T real numbers taking 5/2 n log2 n operations:
      forward   of x, of the kernel, and back  (2 B + 1) D;  the kernel, from two tables of powers  2 D T (2 pairs)
      backward  of the gradient, x and the kernel, and back to both  (3 B + 2) D;  to both factors of the kernel
    """
    batch, tokens = BATCH.symbol, TIME.symbol
    k = Log2(tokens)
    transform = mul(5, PowerOfTwo(k), k + 1)
    width = PowerOfTwo(k // 2)
    powers = mul(4, channels, pairs, width, (tokens + width - 1) // width)
    model = mul(batch, tokens, channels, 11 * pairs + 3)
    forward = mul(2 * batch + 1, channels, transform) + powers
    return Flops(model, forward, mul(3 * batch + 2, channels, transform) + 2 * powers)


@dataclass(frozen=True, kw_only=True)
class S4D(Op):
    """Input `[B, T, D]`; owns A_log, A_imag `[D, N / 2]`, C `[D, N / 2, 2]`, D and log_dt `[D]`, kept in fp32."""

    channels: Axis
    pairs: Axis
    discretisation: Rule = "zoh"
    start: Literal["lin", "inv"] = "lin"

    def results(self, *inputs: Value) -> tuple[Result, ...]:
        return (Result(inputs[0].axes),)

    def weights(self) -> tuple[Weight, ...]:
        """C decays, as in the code of S4; D and what decides about time do not."""
        own = ".s4d_initialise"
        by_state, by_channel = (self.channels, self.pairs), (self.channels,)
        complex_normal = Init("normal_", (0.5**0.5,))  # of each part: variance 1 in all
        return (
            Weight("A_log", by_state, Init("A_half_", module=own), decay=False, keep_fp32=True),
            Weight("A_imag", by_state, Init(START[self.start], module=own), decay=False, keep_fp32=True),
            Weight("C", (*by_state, constant_axis("2", 2)), complex_normal, keep_fp32=True),
            Weight("D", by_channel, Init("normal_", (1.0,)), decay=False, keep_fp32=True),
            Weight("log_dt", by_channel, Init("log_dt_", DT, module=own), decay=False, keep_fp32=True),
        )

    def state(self) -> tuple[State, ...]:
        return (State("ssm", (self.channels, self.pairs, constant_axis("2", 2)), "ssm", "state"),)

    def flops(self, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> Flops:
        return s4d_flops(self.channels.symbol, self.pairs.symbol)

    def retain(self, tape: Tape, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> None:
        tape.keep(*inputs)
        tape.new(*outputs, product=True)
        tape.extra("kernel", mul(self.channels.symbol, TIME.symbol, tape.width()), product=True)

    def imports(self) -> tuple[tuple[str, str], ...]:
        return ((".s4d", "s4d"),)

    def code(self, p: Printer) -> str:
        weights = ", ".join(map(p.weight, ("A_log", "A_imag", "C", "D", "log_dt")))
        rule = "" if self.discretisation == "zoh" else f'discretisation="{self.discretisation}", '
        return f"s4d({p.inputs[0]}, {weights}, {rule}positions={p.positions}, {p.held('ssm')})"

    @property
    def mixes_tokens(self) -> bool:
        return True

    @property
    def label(self) -> str:
        return f"s4d {self.discretisation}"


def s4d(b: Body, x: Value, pairs: Axis, *, discretisation: Rule, start: Literal["lin", "inv"]) -> Value:
    """`pairs` is d_state / 2: complex states, one of each conjugate pair."""
    return b.one(S4D(channels=x.width, pairs=pairs, discretisation=discretisation, start=start), x)
