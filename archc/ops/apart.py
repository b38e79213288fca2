"""A part of a product by itself, for a backward that needs no other part of it."""

from __future__ import annotations

from dataclasses import dataclass

from archc.ir.op import Op, Printer, Result
from archc.ir.tape import Tape
from archc.ir.values import Value


@dataclass(frozen=True, kw_only=True)
class Apart(Op):
    """The same values in a storage of their own while gradients are recorded; else where they are."""

    def results(self, *inputs: Value) -> tuple[Result, ...]:
        return (Result(inputs[0].axes),)

    def retain(self, tape: Tape, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> None:
        tape.new(*outputs, wide=tape.wide(*inputs))

    def imports(self) -> tuple[tuple[str, str], ...]:
        return ((".apart", "apart"),)

    def code(self, p: Printer) -> str:
        return f"apart({p.inputs[0]})"

    @property
    def is_view(self) -> bool:
        return True

    @property
    def label(self) -> str:
        return "apart"
