"""Projections of heads: each head has a matrix of its own. Weight `[heads, d_out, d_in]`."""

from __future__ import annotations

from dataclasses import dataclass

from archc.ir.body import Body
from archc.ir.op import Module, Printer
from archc.ir.size import add, mul
from archc.ir.tape import Tape
from archc.ir.values import Axis, Init, Value, numel
from archc.ops.linear import DEFAULT_INIT, ZEROS, Projection, kept_product


@dataclass(frozen=True, kw_only=True)
class HeadLinear(Projection):
    """`y[h] = x[h] W[h]ᵀ (+ b[h])` of x `[B, T, heads, d_in]`."""

    heads: Axis

    @property
    def lead(self) -> tuple[Axis, ...]:
        return (self.heads,)

    def modules(self) -> tuple[Module, ...]:
        parts = ", ".join(axis.name for axis in self.to) if len(self.to) > 1 else ""
        sizes = f"{self.heads.size.value}, {self.d_in.size.value}, {self.d_out.value}"
        imports = ((".heads", "HeadLinear"),)
        return (Module(self.path, f"HeadLinear({sizes}, bias={self.bias})", parts, imports),)

    def retain(self, tape: Tape, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> None:
        tape.keep(*inputs)
        product = kept_product(self.d_in.symbol, self.d_out)
        adds = self.bias and not self.bias_elsewhere
        if adds:  # to a result that nobody reads again
            n_bytes = mul(add(*(numel(v.axes) for v in outputs)), tape.element)
            tape.extra("product", n_bytes, kept=False, product=product)
        tape.new(*outputs, product=product and not adds)

    def imports(self) -> tuple[tuple[str, str], ...]:
        return ((".heads", "head_linear"),) if self.bias and self.bias_elsewhere else ()

    def code(self, p: Printer) -> str:
        (x,) = p.inputs
        module = p.weight(self.path)
        call = f"head_linear({x}, {module}.weight)" if self.bias and self.bias_elsewhere else f"{module}({x})"
        return call if len(self.to) == 1 else f"torch.split({call}, {[a.size.value for a in self.to]}, dim=-1)"

    @property
    def label(self) -> str:
        return f"head_linear[{self.path}]" + (" bias elsewhere" if self.bias_elsewhere else " bias" * self.bias)


def head_linear_parts(
    b: Body,
    path: str,
    x: Value,
    to: tuple[Axis, ...],
    *,
    bias: bool = False,
    init: Init = DEFAULT_INIT,
    bias_init: Init = ZEROS,
    bias_fp32: bool = False,
) -> tuple[Value, ...]:
    """Project each head of x `[B, T, heads, d_in]` to several named parts of its own matrix."""
    heads, d_in = x.axes[-2:]
    op = HeadLinear(
        path=path, heads=heads, d_in=d_in, to=to, bias=bias, init=init, bias_init=bias_init, bias_fp32=bias_fp32
    )
    return b.apply(op, x)
