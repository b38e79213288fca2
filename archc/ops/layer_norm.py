"""Layer normalisation. Source: Ba et al. 2016, arXiv:1607.06450."""

from __future__ import annotations

from dataclasses import dataclass

from archc.ir.body import Body
from archc.ir.op import Module, Op, Printer, Result
from archc.ir.size import mul
from archc.ir.tape import Tape
from archc.ir.values import Axis, Init, Value, Weight, numel


@dataclass(frozen=True, kw_only=True)
class LayerNorm(Op):
    """`(x - mean(x)) / sqrt(var(x) + eps) * weight (+ bias)` over the last axis; the result has the weight's dtype."""

    path: str
    width: Axis
    eps: float
    bias: bool

    def results(self, *inputs: Value) -> tuple[Result, ...]:
        return (Result(inputs[0].axes),)

    def weights(self) -> tuple[Weight, ...]:
        weight = Weight(f"{self.path}.weight", (self.width,), Init("ones_"), decay=False)
        bias = Weight(f"{self.path}.bias", (self.width,), Init("zeros_"), decay=False)
        return (weight, bias) if self.bias else (weight,)

    def modules(self) -> tuple[Module, ...]:
        bias = "" if self.bias else ", bias=False"
        return (Module(self.path, f"nn.LayerNorm({self.width.size.value}, eps={self.eps!r}{bias})"),)

    def retain(self, tape: Tape, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> None:
        tape.keep(*inputs)
        tape.new(*outputs)
        tape.extra("mean, rstd", mul(2, numel(inputs[0].axes[:-1]), tape.width()))

    def imports(self) -> tuple[tuple[str, str], ...]:
        return ((".layer_norm", "layer_norm"),)

    def code(self, p: Printer) -> str:
        module = p.weight(self.path)
        bias = f"{module}.bias" if self.bias else "None"
        return f"layer_norm({p.inputs[0]}, {module}.weight, {bias}, {self.eps!r})"

    @property
    def label(self) -> str:
        return f"layer_norm[{self.path}] eps={self.eps!r}" + ("" if self.bias else " no bias")


def layer_norm(b: Body, path: str, x: Value, eps: float, *, bias: bool = True) -> Value:
    return b.one(LayerNorm(path=path, width=x.width, eps=eps, bias=bias), x)
