"""Pointwise ops. They carry no weights and, as the field counts, no FLOPs."""

from __future__ import annotations

from dataclasses import dataclass

from archc.ir.body import Body
from archc.ir.op import Op, Printer, Result
from archc.ir.size import add as sum_of
from archc.ir.size import mul as mul_of
from archc.ir.tape import Tape
from archc.ir.values import Axis, Value, numel

FUNCTIONAL = ("torch.nn", "functional as F")
EXPRESSIONS = {
    "silu": "F.silu({x})",
    "gelu": "F.gelu({x})",
    "gelu_tanh": 'F.gelu({x}, approximate="tanh")',
    "relu": "F.relu({x})",
    "relu2": "F.relu({x}).square()",
    "softplus": "F.softplus({x})",
    "sigmoid": "F.sigmoid({x})",
}

READ_RESULT = ("relu", "sigmoid")  # their backward reads what they made, that of others what they got
READ_BETWEEN = ("relu2",)  # or what lies between: the square's that of which it is the square


@dataclass(frozen=True, kw_only=True)
class Pointwise(Op):
    """A function of one value or several of the same shape."""

    def results(self, *inputs: Value) -> tuple[Result, ...]:
        return (Result(inputs[0].axes),)


@dataclass(frozen=True, kw_only=True)
class Activation(Pointwise):
    """An activation function, by its name in the language."""

    function: str

    def imports(self) -> tuple[tuple[str, str], ...]:
        return (FUNCTIONAL,)

    def retain(self, tape: Tape, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> None:
        (x,), (y,) = inputs, outputs
        tape.new(y, wide=tape.wide(x))
        if self.function in READ_RESULT:
            tape.keep(y)
        elif self.function in READ_BETWEEN:
            tape.extra("root", mul_of(numel(x.axes), tape.width(tape.wide(x))))
        else:
            tape.keep(x)

    def code(self, p: Printer) -> str:
        return EXPRESSIONS[self.function].format(x=p.inputs[0])

    @property
    def label(self) -> str:
        return self.function


@dataclass(frozen=True, kw_only=True)
class Mul(Pointwise):
    def code(self, p: Printer) -> str:
        return " * ".join(p.inputs)

    @property
    def label(self) -> str:
        return "mul"


@dataclass(frozen=True, kw_only=True)
class Add(Pointwise):
    """The sum; as a residual add, the first operand is the stream and sets the dtype."""

    def retain(self, tape: Tape, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> None:
        tape.new(*outputs, wide=tape.wide(*inputs))

    def code(self, p: Printer) -> str:
        return " + ".join(p.inputs)

    @property
    def label(self) -> str:
        return "add"


@dataclass(frozen=True, kw_only=True)
class Scale(Pointwise):
    """Multiplication by a constant of the architecture."""

    factor: float

    def retain(self, tape: Tape, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> None:
        tape.new(*outputs, wide=tape.wide(*inputs))

    def code(self, p: Printer) -> str:
        return f"{p.inputs[0]} * {self.factor!r}"

    @property
    def label(self) -> str:
        return f"scale {self.factor!r}"


@dataclass(frozen=True, kw_only=True)
class SoftCap(Pointwise):
    """`cap * tanh(x / cap)` (Gemma 2, arXiv:2408.00118)."""

    cap: float

    def retain(self, tape: Tape, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> None:
        wide = tape.wide(*inputs)
        tape.extra("tanh", mul_of(numel(inputs[0].axes), tape.width(wide)))
        tape.new(*outputs, wide=wide)

    def code(self, p: Printer) -> str:
        return f"{self.cap!r} * ({p.inputs[0]} / {self.cap!r}).tanh()"

    @property
    def label(self) -> str:
        return f"soft_cap {self.cap!r}"


@dataclass(frozen=True, kw_only=True)
class Upcast(Pointwise):
    """To at least float32: the residual stream of state-spaces' Mamba."""

    def retain(self, tape: Tape, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> None:
        (x,), (y,) = inputs, outputs
        if tape.width(tape.wide(x)) == tape.width():
            tape.view(y, x)
        else:
            tape.new(y, wide=True)

    def imports(self) -> tuple[tuple[str, str], ...]:
        return ((".precision", "promoted"),)

    def code(self, p: Printer) -> str:
        return f"promoted({p.inputs[0]})"

    @property
    def label(self) -> str:
        return "upcast"


@dataclass(frozen=True, kw_only=True)
class Concat(Op):
    """Values side by side along the last axis."""

    def results(self, *inputs: Value) -> tuple[Result, ...]:
        name = "+".join(value.width.name for value in inputs)
        return (Result((*inputs[0].axes[:-1], Axis(name, sum_of(*(v.width.symbol for v in inputs))))),)

    def retain(self, tape: Tape, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> None:
        tape.new(*outputs, wide=tape.wide(*inputs))

    def imports(self) -> tuple[tuple[str, str], ...]:
        return (("torch", ""),)

    def code(self, p: Printer) -> str:
        return f"torch.cat([{', '.join(p.inputs)}], dim=-1)"

    @property
    def label(self) -> str:
        return "concat"


def concat(b: Body, *values: Value) -> Value:
    return b.one(Concat(), *values)


def activation(b: Body, function: str, x: Value) -> Value:
    return b.one(Activation(function=function), x)


def silu(b: Body, x: Value) -> Value:
    return activation(b, "silu", x)


def softplus(b: Body, x: Value) -> Value:
    return activation(b, "softplus", x)


def scaled(b: Body, x: Value, factor: float) -> Value:
    return b.one(Scale(factor=factor), x)


def mul(b: Body, x: Value, y: Value) -> Value:
    return b.one(Mul(), x, y)


def add(b: Body, x: Value, y: Value) -> Value:
    return b.one(Add(), x, y)
