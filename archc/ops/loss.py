"""The training loss: mean cross-entropy of the logits."""

from __future__ import annotations

from dataclasses import dataclass

from archc.ir.op import Op, Printer, Result
from archc.ir.size import as_size, mul
from archc.ir.tape import INDEX_BYTES, Tape
from archc.ir.values import Value, numel


@dataclass(frozen=True, kw_only=True)
class CrossEntropy(Op):
    """`-log softmax(logits)[target]`, averaged over the targets that count; a scalar of at least fp32."""

    def results(self, *inputs: Value) -> tuple[Result, ...]:
        return (Result(()),)

    def retain(self, tape: Tape, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> None:
        """The logarithms of all probabilities; how many targets count, as torch and as we count them."""
        tape.extra("log-probabilities", mul(numel(inputs[0].axes), tape.width()))
        tape.extra("targets that count", as_size(INDEX_BYTES + tape.width()))
        tape.new(*outputs, wide=True)

    def imports(self) -> tuple[tuple[str, str], ...]:
        return ((".loss", "cross_entropy"),)

    def code(self, p: Printer) -> str:
        return f"cross_entropy({p.inputs[0]}, targets)"

    @property
    def label(self) -> str:
        return "cross_entropy"
