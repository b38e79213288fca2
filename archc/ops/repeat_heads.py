"""Heads that several others share, once for each of these."""

from __future__ import annotations

from dataclasses import dataclass

from archc.ir.body import Body
from archc.ir.op import Op, Printer, Result
from archc.ir.tape import Tape
from archc.ir.values import Axis, Value


@dataclass(frozen=True, kw_only=True)
class RepeatHeads(Op):
    """`[B, T, groups, width] -> [B, T, heads, width]`: head i is that of group i // (heads / groups)."""

    groups: Axis
    heads: Axis

    def results(self, *inputs: Value) -> tuple[Result, ...]:
        *lead, _, width = inputs[0].axes
        return (Result((*lead, self.heads, width)),)

    def retain(self, tape: Tape, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> None:
        tape.new(*outputs, wide=tape.wide(*inputs))

    def code(self, p: Printer) -> str:
        return f"{p.inputs[0]}.repeat_interleave({self.heads.size.value // self.groups.size.value}, dim=2)"

    @property
    def label(self) -> str:
        return f"repeat_heads {self.groups.size.value} -> {self.heads.size.value}"


def repeat_heads(b: Body, x: Value, heads: Axis) -> Value:
    """x as it is where it has as many heads already."""
    groups = x.axes[-2]
    return x if groups.size.value == heads.size.value else b.one(RepeatHeads(groups=groups, heads=heads), x)
