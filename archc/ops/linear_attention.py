"""Causal attention without a softmax. Source: Katharopoulos et al. 2020, arXiv:2006.16236.

S[t] = S[t-1] + v[t] ⊗ k[t],  y[t] = S[t] q[t]          S [n_heads, d_head, d_state]

This is the recurrence of Mamba-2 (arXiv:2405.21060, section 7) whose states do not decay and whose steps are one, so it
runs as that. With a normaliser, v has a last channel of ones, and the others of y are divided by what becomes of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from archc.ir.body import Body
from archc.ir.op import Flops, Op, Printer, Result
from archc.ir.size import add, mul
from archc.ir.tape import Tape
from archc.ir.values import BATCH, TIME, Axis, Value, Weight, numel
from archc.ops.pointwise import FUNCTIONAL, Pointwise
from archc.ops.ssd import SSD

STEPS_OF_ONE = (1.0, 1.0)
FEATURES = {"elu": "F.elu({x}) + 1", "relu": "F.relu({x})", "silu": "F.silu({x})", "softmax": "F.softmax({x}, dim=-1)"}
READ_RESULT = ("relu", "softmax")  # their backward reads what they made, that of others what they got


@dataclass(frozen=True, kw_only=True)
class Feature(Pointwise):
    """What queries and keys go through, each head by itself."""

    function: str

    def retain(self, tape: Tape, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> None:
        tape.new(*outputs, wide=tape.wide(*inputs))
        tape.keep(*(outputs if self.function in READ_RESULT else inputs))

    def imports(self) -> tuple[tuple[str, str], ...]:
        return (FUNCTIONAL,)

    def code(self, p: Printer) -> str:
        return FEATURES[self.function].format(x=p.inputs[0])

    @property
    def label(self) -> str:
        return f"feature {self.function}"


@dataclass(frozen=True, kw_only=True)
class LinearAttention(SSD):
    """Inputs v `[B, T, H, P]`, k and q `[B, T, G, N]`: x, B and C of Mamba-2. It owns nothing."""

    dt_limit: tuple[float, float | None] = STEPS_OF_ONE

    def weights(self) -> tuple[Weight, ...]:
        return ()

    def flops(self, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> Flops:
        """Model: per state v k and its sum, S q and its sum. The kernels are Mamba-2's."""
        kernels = super().flops(inputs, outputs)
        states = mul(self.n_heads.symbol, self.d_head.symbol, self.d_state.symbol)
        return Flops(mul(4, BATCH.symbol, TIME.symbol, states), kernels.forward, kernels.backward)

    def retain(self, tape: Tape, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> None:
        """As Mamba-2's, and the constants in the place of dt, A_log, D and dt_bias."""
        super().retain(tape, inputs, outputs)
        tape.extra("steps", mul(numel(inputs[0].axes[:-1]), tape.element))
        tape.extra("no decay", mul(2, self.n_heads.symbol, tape.width()))

    def imports(self) -> tuple[tuple[str, str], ...]:
        return ((".linear_attention", "undecayed"),)

    def code(self, p: Printer) -> str:
        return f"undecayed({self.function(p)}, {', '.join(p.inputs)}, {self.options(p)})"

    @property
    def label(self) -> str:
        return f"linear_attention chunk={self.chunk}"


@dataclass(frozen=True, kw_only=True)
class WithOnes(Op):
    """`[B, T, H, P] -> [B, T, H, P + 1]`: a last channel of ones."""

    def results(self, *inputs: Value) -> tuple[Result, ...]:
        *lead, width = inputs[0].axes
        return (Result((*lead, Axis(f"{width.name} + 1", add(width.symbol, 1)))),)

    def retain(self, tape: Tape, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> None:
        tape.new(*outputs, wide=tape.wide(*inputs))

    def imports(self) -> tuple[tuple[str, str], ...]:
        return (FUNCTIONAL,)

    def code(self, p: Printer) -> str:
        return f"F.pad({p.inputs[0]}, (0, 1), value=1.0)"

    @property
    def label(self) -> str:
        return "with_ones"


@dataclass(frozen=True, kw_only=True)
class Normalised(Op):
    """`y[..., :-1] / (y[..., -1] + eps)`."""

    width: Axis
    eps: float

    def results(self, *inputs: Value) -> tuple[Result, ...]:
        return (Result((*inputs[0].axes[:-1], self.width)),)

    def retain(self, tape: Tape, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> None:
        """What is divided, in the dtype of the division, and by what."""
        (y,), (divided,) = inputs, outputs
        if tape.wide(y) or tape.element == tape.width():
            tape.keep(y)
        else:
            tape.extra("wide", mul(numel(y.axes), tape.width()))
        tape.extra("sums", mul(numel(y.axes[:-1]), tape.width()))
        tape.new(divided, wide=tape.wide(y))

    def imports(self) -> tuple[tuple[str, str], ...]:
        return ((".linear_attention", "normalised"),)

    def code(self, p: Printer) -> str:
        return f"normalised({p.inputs[0]}, {self.eps!r})"

    @property
    def label(self) -> str:
        return f"normalised eps={self.eps!r}"


def feature(b: Body, function: str | None, x: Value) -> Value:
    return x if function is None else b.one(Feature(function=function), x)


def linear_attention(b: Body, q: Value, k: Value, v: Value, *, chunk: int, eps: float | None) -> Value:
    """`[B, T, H, P]`; divided by the sum of the weights plus `eps`, or not at all if that is None."""

    def attend(v: Value) -> Value:
        op = LinearAttention(n_heads=v.axes[-2], d_head=v.width, n_groups=k.axes[-2], d_state=k.width, chunk=chunk)
        return b.one(op, v, k, q)

    if eps is None:
        return attend(v)
    return b.one(Normalised(width=v.width, eps=eps), attend(b.one(WithOnes(), v)))
