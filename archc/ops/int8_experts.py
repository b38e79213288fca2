"""Projections by experts whose weights are int8, for inference. Source: ExpertsInt8 of Jamba-1.5, arXiv:2408.12570."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from archc.ir.op import Flops, Kernel, Printer
from archc.ir.tape import Tape
from archc.ir.values import Init, Value, Weight
from archc.ops.linear import ExpertLinear

KERNEL = Kernel("int8_expert_linear", {}, "")


@dataclass(frozen=True, kw_only=True)
class Int8ExpertLinear(ExpertLinear):
    """One int8 matrix per expert and a scale for each of its rows, which fp32 keeps. It has no backward."""

    def weights(self) -> tuple[Weight, ...]:
        active = Fraction(self.top_k, self.experts.size.value)
        _, *bias = super().weights()
        matrix, rows = (self.experts, self.to, self.d_in), (self.experts, self.to)
        return (
            Weight(self.path, matrix, Init("zeros_"), decay=False, int8=True, active=active),
            Weight(f"{self.path}_scale", rows, Init("ones_"), decay=False, keep_fp32=True, active=active),
            *bias,
        )

    def flops(self, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> Flops:
        counted = super().flops(inputs, outputs)
        return Flops(counted.model, counted.forward)

    def retain(self, tape: Tape, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> None:
        tape.new(*outputs)

    def imports(self) -> tuple[tuple[str, str], ...]:
        return super().imports()[1:]

    def product(self, p: Printer) -> str:
        rows, plan = p.inputs
        weights = f"{p.weight(self.path)}, {p.weight(f'{self.path}_scale')}"
        return f"{p.kernel(KERNEL)}({rows}, {weights}, {plan})"

    @property
    def label(self) -> str:
        return f"int8_{super().label}"
