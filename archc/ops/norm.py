"""Root-mean-square normalisation. Source: Zhang & Sennrich 2019, arXiv:1910.07467."""

from __future__ import annotations

from dataclasses import dataclass

from archc.ir.body import Body
from archc.ir.op import Kernel, Module, Op, Printer, Result
from archc.ir.size import mul
from archc.ir.tape import Tape
from archc.ir.values import Axis, Init, Value, Weight, numel


@dataclass(frozen=True, kw_only=True)
class RMSNorm(Op):
    """`x / sqrt(mean(x²) + eps) * weight` over the last axis; the result has the weight's dtype.

    `one_plus` stores the weight less 1, as Gemma does: the factor is `1 + weight`, and weight decay pulls it to 1.
    """

    path: str
    width: Axis
    eps: float
    one_plus: bool = False

    @property
    def kernel(self) -> Kernel:
        return Kernel("rms_norm", {"one_plus": True}, "one_plus") if self.one_plus else Kernel("rms_norm", {}, "")

    def results(self, *inputs: Value) -> tuple[Result, ...]:
        return (Result(inputs[0].axes),)

    def weights(self) -> tuple[Weight, ...]:
        start = Init("zeros_" if self.one_plus else "ones_")
        return (Weight(f"{self.path}.weight", (self.width,), start, decay=False),)

    def modules(self) -> tuple[Module, ...]:
        comment = "holds the weight less 1" if self.one_plus else ""
        return (Module(self.path, f"nn.RMSNorm({self.width.size.value}, eps={self.eps!r})", comment),)

    def retain(self, tape: Tape, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> None:
        tape.keep(*inputs)
        tape.new(*outputs)
        self.retain_statistics(tape, inputs[0])

    def retain_statistics(self, tape: Tape, x: Value) -> None:
        """One over the root mean square of each row."""
        tape.extra("rstd", mul(numel(x.axes[:-1]), tape.width()))

    def code(self, p: Printer) -> str:
        name = p.kernel(self.kernel)
        return f"{name}({p.inputs[0]}, {p.weight(self.path)}.weight, {self.eps!r})"

    @property
    def label(self) -> str:
        return f"rms_norm[{self.path}] eps={self.eps!r}" + " one_plus" * self.one_plus


def rms_norm(b: Body, path: str, x: Value, eps: float, *, one_plus: bool = False) -> Value:
    return b.one(RMSNorm(path=path, width=x.width, eps=eps, one_plus=one_plus), x)
