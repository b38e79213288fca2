"""Projections: one matrix, one value in, one or several named parts out."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from archc.ir.body import Body, StackedExperts
from archc.ir.op import Flops, Module, Op, Printer, Result
from archc.ir.size import Size, add, minimum, mul
from archc.ir.tape import Tape
from archc.ir.values import BATCH, TIME, Axis, Init, Value, Weight, numel

DEFAULT_INIT = Init("normal_", (0.02,))
ZEROS = Init("zeros_")
WIDENS = 8  # times as wide as its operand: selective recomputation makes such a product again


def kept_product(d_in: Size, d_out: Size) -> bool:
    """Whether selective recomputation keeps a product; those that widen much are large, and cheap to have again."""
    return d_out.value <= WIDENS * d_in.value


@dataclass(frozen=True, kw_only=True)
class Projection(Op):
    """What projections have in common: a matrix whose rows are the parts of `to`, in order, and perhaps a bias."""

    path: str
    d_in: Axis
    to: tuple[Axis, ...]
    bias: bool = False
    bias_elsewhere: bool = False  # the bias is stored here but added by the kernel that reads the result
    init: Init = DEFAULT_INIT
    bias_init: Init = ZEROS
    bias_fp32: bool = False

    def results(self, *inputs: Value) -> tuple[Result, ...]:
        (x,) = inputs
        return tuple(Result((*x.axes[:-1], axis)) for axis in self.to)

    @property
    def lead(self) -> tuple[Axis, ...]:
        """Axes before the rows, one matrix for each place along them."""
        return ()

    @property
    def d_out(self) -> Size:
        return add(*(axis.symbol for axis in self.to))

    def weights(self) -> tuple[Weight, ...]:
        rows = self.to[0] if len(self.to) == 1 else Axis("+".join(axis.name for axis in self.to), self.d_out)
        weight = Weight(f"{self.path}.weight", (*self.lead, rows, self.d_in), self.init)
        if not self.bias:
            return (weight,)
        axes = (*self.lead, rows)
        return weight, Weight(f"{self.path}.bias", axes, self.bias_init, decay=False, keep_fp32=self.bias_fp32)

    def flops(self, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> Flops:
        (x,) = inputs
        forward = mul(2, numel(x.axes), self.d_out)
        return Flops(forward, forward, 2 * forward)

    @property
    def matmul(self) -> bool:
        return True


@dataclass(frozen=True, kw_only=True)
class Linear(Projection):
    """`y = x Wᵀ (+ b)`."""

    def modules(self) -> tuple[Module, ...]:
        parts = ", ".join(axis.name for axis in self.to) if len(self.to) > 1 else ""
        constructor = f"nn.Linear({self.d_in.size.value}, {self.d_out.value}, bias={self.bias})"
        return (Module(self.path, constructor, parts),)

    def retain(self, tape: Tape, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> None:
        tape.keep(*inputs)
        tape.new(*outputs, product=kept_product(self.d_in.symbol, self.d_out))

    def imports(self) -> tuple[tuple[str, str], ...]:
        return (("torch.nn", "functional as F"),) if self.bias and self.bias_elsewhere else ()

    def code(self, p: Printer) -> str:
        (x,) = p.inputs
        module = p.weight(self.path)
        call = f"F.linear({x}, {module}.weight)" if self.bias and self.bias_elsewhere else f"{module}({x})"
        if len(self.to) == 1:
            return call
        sizes = [axis.size.value for axis in self.to]
        if len(set(sizes)) == 1:
            return f"{call}.chunk({len(sizes)}, dim=-1)"
        return f"torch.split({call}, {sizes}, dim=-1)"

    @property
    def label(self) -> str:
        return f"linear[{self.path}]" + (" bias elsewhere" if self.bias_elsewhere else " bias" if self.bias else "")


@dataclass(frozen=True, kw_only=True)
class ExpertLinear(Op):
    """One matrix per expert `[E, d_out, d_in]`, applied to rows that are grouped by expert; biases are `[E, d_out]`."""

    path: str
    experts: Axis
    top_k: int
    d_in: Axis
    to: Axis
    bias: bool = False
    init: Init = DEFAULT_INIT
    bias_init: Init = ZEROS

    def results(self, *inputs: Value) -> tuple[Result, ...]:
        rows, _ = inputs
        return (Result((*rows.axes[:-1], self.to)),)

    @property
    def bias_path(self) -> str:
        return f"{self.path}_bias"

    def weights(self) -> tuple[Weight, ...]:
        active = Fraction(self.top_k, self.experts.size.value)
        weight = Weight(self.path, (self.experts, self.to, self.d_in), self.init, active=active)
        if not self.bias:
            return (weight,)
        return weight, Weight(self.bias_path, (self.experts, self.to), self.bias_init, decay=False, active=active)

    def flops(self, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> Flops:
        forward = mul(2, BATCH.symbol, TIME.symbol, self.top_k, self.d_in.symbol, self.to.symbol)
        return Flops(forward, forward, 2 * forward)

    def retain(self, tape: Tape, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> None:
        tape.keep(*inputs)
        if self.bias:  # added to a result that nobody reads again
            tape.extra("product", mul(numel(outputs[0].axes), tape.element), kept=False, product=True)
        tape.new(*outputs, product=not self.bias)

    def imports(self) -> tuple[tuple[str, str], ...]:
        product = (".experts", "expert_linear")
        return (product, (".expert_bias", "add_expert_bias")) if self.bias else (product,)

    def code(self, p: Printer) -> str:
        product = self.product(p)
        return f"add_expert_bias({product}, {p.weight(self.bias_path)}, {p.inputs[1]})" if self.bias else product

    def product(self, p: Printer) -> str:
        """The expression without the bias."""
        rows, plan = p.inputs
        return f"expert_linear({rows}, {p.weight(self.path)}, {plan})"

    def touched(self, weight: Weight) -> Size:
        """An expert without a row is not read."""
        each = numel(weight.axes[1:])
        return mul(minimum(self.experts.symbol, mul(BATCH.symbol, TIME.symbol, self.top_k)), each)

    @property
    def matmul(self) -> bool:
        return True

    @property
    def label(self) -> str:
        return f"expert_linear[{self.path}]" + (" bias" if self.bias else "")


def linear_parts(
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
    """Project `x` to several named parts of one matrix."""
    op = Linear(path=path, d_in=x.width, to=to, bias=bias, init=init, bias_init=bias_init, bias_fp32=bias_fp32)
    return b.apply(op, x)


def linear(
    b: Body,
    path: str,
    x: Value,
    to: Axis,
    *,
    bias: bool = False,
    init: Init = DEFAULT_INIT,
    bias_init: Init = ZEROS,
    bias_fp32: bool = False,
) -> Value:
    """Project `x` to `to`; inside `Body.stacked`, with one matrix per expert."""
    if b.stacked is not None:
        if bias_fp32:
            raise ValueError(f"{path}: biases of experts have the dtype of their weights")
        return _expert_linear(b, b.stacked, path, x, to, bias, init, bias_init)
    (y,) = linear_parts(b, path, x, (to,), bias=bias, init=init, bias_init=bias_init, bias_fp32=bias_fp32)
    return y


def out_linear(b: Body, path: str, x: Value, *, bias: bool = False) -> Value:
    """The projection back to the residual stream, whose init is divided by sqrt(number of residual adds)."""
    init = Init("normal_", (0.02,), residual_out=True)
    return linear(b, path, x, b.d_model, bias=bias, init=init)


def _expert_linear(
    b: Body, stack: StackedExperts, path: str, x: Value, to: Axis, bias: bool, init: Init, bias_init: Init
) -> Value:
    op = stack.projection(
        path=f"{stack.name}.{path}",
        experts=stack.experts,
        top_k=stack.top_k,
        d_in=x.width,
        to=to,
        bias=bias,
        init=init,
        bias_init=bias_init,
    )
    return b.one(op, x, stack.plan)
