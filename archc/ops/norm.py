"""Root-mean-square normalisation. Source: Zhang & Sennrich 2019, arXiv:1910.07467."""

from __future__ import annotations

from dataclasses import dataclass

from archc.ir.body import Body
from archc.ir.op import Kernel, Module, Op, Printer, Result
from archc.ir.values import Axis, Init, Value, Weight

RMS_NORM_KERNEL = Kernel("rms_norm", {}, "")


@dataclass(frozen=True, kw_only=True)
class RMSNorm(Op):
    """`x / sqrt(mean(x²) + eps) * weight` over the last axis; the result has the weight's dtype."""

    path: str
    width: Axis
    eps: float

    def results(self, *inputs: Value) -> tuple[Result, ...]:
        return (Result(inputs[0].axes),)

    def weights(self) -> tuple[Weight, ...]:
        return (Weight(f"{self.path}.weight", (self.width,), Init("ones_"), decay=False),)

    def modules(self) -> tuple[Module, ...]:
        return (Module(self.path, f"nn.RMSNorm({self.width.size.value}, eps={self.eps!r})"),)

    def code(self, p: Printer) -> str:
        name = p.kernel(RMS_NORM_KERNEL)
        return f"{name}({p.inputs[0]}, {p.weight(self.path)}.weight, {self.eps!r})"

    @property
    def label(self) -> str:
        return f"rms_norm[{self.path}] eps={self.eps!r}"


def rms_norm(b: Body, path: str, x: Value, eps: float) -> Value:
    return b.one(RMSNorm(path=path, width=x.width, eps=eps), x)
