"""Learned tokens in front of every document. Source: Hymba's meta tokens, arXiv:2411.13676."""

from __future__ import annotations

from dataclasses import dataclass

from archc.ir.op import Op, Printer, Result
from archc.ir.size import Const, maximum
from archc.ir.tape import Tape
from archc.ir.values import TIME, Axis, Init, Value, Weight
from archc.ops.attention import PAST


def own_tokens(size: int) -> Axis:
    """The tokens of a stream of T that are not learned: all but the first `size` of a sequence."""
    return Axis("tokens", TIME.symbol - maximum(Const(size) - PAST, 0))


@dataclass(frozen=True, kw_only=True)
class Prefix(Op):
    """`[B, tokens, d_model] -> [B, T, d_model]`: the `size` learned ones first."""

    size: Axis
    d_model: Axis

    def results(self, *inputs: Value) -> tuple[Result, ...]:
        (h,) = inputs
        return (Result((h.axes[0], TIME, self.d_model)),)

    def weights(self) -> tuple[Weight, ...]:
        return (Weight("prefix", (self.size, self.d_model), Init("normal_", (0.02,)), decay=False),)

    def retain(self, tape: Tape, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> None:
        tape.new(*outputs, wide=tape.wide(*inputs))

    def code(self, p: Printer) -> str:
        return f"prefix.before({p.inputs[0]}, {p.weight('prefix')})"

    @property
    def label(self) -> str:
        return f"prefix {self.size.size.value}"


@dataclass(frozen=True, kw_only=True)
class WithoutPrefix(Op):
    """`[B, T, d_model] -> [B, tokens, d_model]`: the learned ones left out."""

    size: int

    def results(self, *inputs: Value) -> tuple[Result, ...]:
        batch, _, width = inputs[0].axes
        return (Result((batch, own_tokens(self.size), width)),)

    def retain(self, tape: Tape, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> None:
        tape.view(*outputs, *inputs)

    def code(self, p: Printer) -> str:
        return f"prefix.without({p.inputs[0]})"

    @property
    def is_view(self) -> bool:
        return True

    @property
    def label(self) -> str:
        return f"without prefix {self.size}"
