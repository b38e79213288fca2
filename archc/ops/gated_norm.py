"""The gated norm of Mamba-2: RMSNorm in groups, of a value times its SiLU gate. Source: arXiv:2405.21060."""

from __future__ import annotations

from dataclasses import dataclass

from archc.ir.body import Body
from archc.ir.op import Module, Op, Printer, Result
from archc.ir.size import Size, mul
from archc.ir.tape import FP32_BYTES, Tape
from archc.ir.values import Axis, Init, Value, Weight, numel


@dataclass(frozen=True, kw_only=True)
class GatedRMSNorm(Op):
    """`rms_norm(y * silu(z))`, or `rms_norm(y) * silu(z)`; each of `groups` equal groups of channels by itself.

    The weight multiplies what is normed. The result has the weight's dtype.
    """

    path: str
    width: Axis
    groups: int
    eps: float
    norm_before_gate: bool = False

    def workspace(self, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> tuple[Size, Size]:
        """Of its plain torch form: 4 wide tensors at once forward (y, the gate, what is normed, and its square), and
        11 backward (y, z, grad, the sigmoid, the gate, what is normed, two gradients, and the factors of that of z).
        """
        wide = mul(FP32_BYTES, numel(outputs[0].axes))
        return mul(4, wide), mul(11, wide)

    def results(self, *inputs: Value) -> tuple[Result, ...]:
        _, z = inputs
        return (Result(z.axes),)

    def weights(self) -> tuple[Weight, ...]:
        return (Weight(f"{self.path}.weight", (self.width,), Init("ones_"), decay=False),)

    def modules(self) -> tuple[Module, ...]:
        comment = f"in {self.groups} groups of {self.width.size.value // self.groups}" if self.groups > 1 else ""
        return (Module(self.path, f"nn.RMSNorm({self.width.size.value}, eps={self.eps!r})", comment),)

    def retain(self, tape: Tape, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> None:
        tape.keep(*inputs)
        tape.new(*outputs)

    def imports(self) -> tuple[tuple[str, str], ...]:
        return ((".gated_norm", "gated_rms_norm"),)

    def code(self, p: Printer) -> str:
        y, z = p.inputs
        options = f", groups={self.groups}" * (self.groups > 1) + ", norm_before_gate=True" * self.norm_before_gate
        return f"gated_rms_norm({y}, {z}, {p.weight(self.path)}.weight, {self.eps!r}{options})"

    @property
    def label(self) -> str:
        order = " before gate" if self.norm_before_gate else ""
        return f"gated_rms_norm[{self.path}] eps={self.eps!r} groups={self.groups}{order}"


def gated_rms_norm(
    b: Body, path: str, y: Value, z: Value, *, eps: float, groups: int = 1, norm_before_gate: bool = False
) -> Value:
    op = GatedRMSNorm(path=path, width=z.width, groups=groups, eps=eps, norm_before_gate=norm_before_gate)
    return b.one(op, y, z)
