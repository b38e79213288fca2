"""Where tokens enter and logits leave: the embedding and a head that shares its weight."""

from __future__ import annotations

from dataclasses import dataclass

from archc.ir.op import Flops, Module, Op, Printer, Result
from archc.ir.size import Size, minimum, mul
from archc.ir.tape import Tape
from archc.ir.values import BATCH, TIME, Axis, Init, Value, Weight, numel

TABLE = "embed"


@dataclass(frozen=True, kw_only=True)
class Embedding(Op):
    """Token ids `[B, T]` to vectors; a look-up, which counts no FLOPs."""

    vocab: Axis
    d_model: Axis

    def results(self, *inputs: Value) -> tuple[Result, ...]:
        return (Result((*inputs[0].axes, self.d_model)),)

    def weights(self) -> tuple[Weight, ...]:
        return (Weight(f"{TABLE}.weight", (self.vocab, self.d_model), Init("normal_", (0.02,))),)

    def modules(self) -> tuple[Module, ...]:
        return (Module(TABLE, f"nn.Embedding({self.vocab.size.value}, {self.d_model.size.value})"),)

    def retain(self, tape: Tape, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> None:
        tape.new(*outputs)

    def code(self, p: Printer) -> str:
        return f"{p.weight(TABLE)}({p.inputs[0]})"

    def touched(self, weight: Weight) -> Size:
        """A row for each token, and no row twice."""
        return mul(minimum(self.vocab.symbol, mul(BATCH.symbol, TIME.symbol)), self.d_model.symbol)

    @property
    def label(self) -> str:
        return "embedding"


@dataclass(frozen=True, kw_only=True)
class TiedHead(Op):
    """Logits through the embedding's own weight."""

    vocab: Axis

    def results(self, *inputs: Value) -> tuple[Result, ...]:
        return (Result((*inputs[0].axes[:-1], self.vocab)),)

    def retain(self, tape: Tape, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> None:
        tape.keep(*inputs)
        tape.new(*outputs, product=True)

    def imports(self) -> tuple[tuple[str, str], ...]:
        return (("torch.nn", "functional as F"),)

    def flops(self, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> Flops:
        forward = mul(2, numel(inputs[0].axes), self.vocab.symbol)
        return Flops(forward, forward, 2 * forward)

    def borrowed(self, inputs: tuple[Value, ...]) -> tuple[Weight, ...]:
        return (Weight(f"{TABLE}.weight", (self.vocab, inputs[0].width), Init("normal_", (0.02,))),)

    def code(self, p: Printer) -> str:
        return f"F.linear({p.inputs[0]}, {p.weight(TABLE)}.weight)"

    @property
    def matmul(self) -> bool:
        return True

    @property
    def label(self) -> str:
        return "tied_head"
