"""One value cut into named parts along its last axis: the x, B and C behind Mamba-2's single convolution."""

from __future__ import annotations

from dataclasses import dataclass

from archc.ir.body import Body
from archc.ir.op import Op, Printer, Result
from archc.ir.values import Axis, Value


@dataclass(frozen=True, kw_only=True)
class Split(Op):
    """`[..., a + b + c] -> [..., a], [..., b], [..., c]`: views, so that nothing is copied."""

    to: tuple[Axis, ...]

    def results(self, *inputs: Value) -> tuple[Result, ...]:
        (x,) = inputs
        return tuple(Result((*x.axes[:-1], axis)) for axis in self.to)

    def code(self, p: Printer) -> str:
        return f"torch.split({p.inputs[0]}, {[axis.size.value for axis in self.to]}, dim=-1)"

    @property
    def is_view(self) -> bool:
        return True

    @property
    def label(self) -> str:
        return f"split {' + '.join(axis.name for axis in self.to)}"


def split(b: Body, x: Value, to: tuple[Axis, ...]) -> tuple[Value, ...]:
    return b.apply(Split(to=to), x)
