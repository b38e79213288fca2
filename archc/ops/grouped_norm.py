"""RMSNorm in groups of channels. Sources: arXiv:1910.07467; per head in RetNet, arXiv:2307.08621."""

from __future__ import annotations

from dataclasses import dataclass

from archc.ir.body import Body
from archc.ir.op import MisfitError, Module, Op, Printer, Result
from archc.ir.size import mul
from archc.ir.tape import Tape
from archc.ir.values import Axis, Init, Value, Weight, numel


@dataclass(frozen=True, kw_only=True)
class GroupedRMSNorm(Op):
    """RMSNorm of each of `groups` equal groups of channels by itself; the weight is as wide as all of them."""

    path: str
    width: Axis
    groups: int
    eps: float

    def results(self, *inputs: Value) -> tuple[Result, ...]:
        return (Result(inputs[0].axes),)

    def weights(self) -> tuple[Weight, ...]:
        return (Weight(f"{self.path}.weight", (self.width,), Init("ones_"), decay=False),)

    def modules(self) -> tuple[Module, ...]:
        width = self.width.size.value
        comment = f"in {self.groups} groups of {width // self.groups}"
        return (Module(self.path, f"nn.RMSNorm({width}, eps={self.eps!r})", comment),)

    def retain(self, tape: Tape, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> None:
        tape.keep(*inputs)
        tape.new(*outputs)
        tape.extra("rstd", mul(numel(inputs[0].axes[:-1]), self.groups, tape.width()))

    def imports(self) -> tuple[tuple[str, str], ...]:
        return ((".grouped_norm", "grouped_rms_norm"),)

    def code(self, p: Printer) -> str:
        return f"grouped_rms_norm({p.inputs[0]}, {p.weight(self.path)}.weight, {self.eps!r}, {self.groups})"

    @property
    def label(self) -> str:
        return f"grouped_rms_norm[{self.path}] eps={self.eps!r} groups={self.groups}"


def grouped_rms_norm(b: Body, path: str, x: Value, eps: float, groups: int) -> Value:
    width = x.width.size.value
    if width % groups:
        raise MisfitError(f"a norm of {width} channels does not divide into {groups} groups")
    return b.one(GroupedRMSNorm(path=path, width=x.width, groups=groups, eps=eps), x)
