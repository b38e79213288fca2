"""Pointwise ops. They carry no weights and, as the field counts, no FLOPs."""

from __future__ import annotations

from dataclasses import dataclass

from archc.ir.body import Body
from archc.ir.op import Op, Printer, Result
from archc.ir.size import add as sum_of
from archc.ir.values import Axis, Value

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

    def code(self, p: Printer) -> str:
        return " + ".join(p.inputs)

    @property
    def label(self) -> str:
        return "add"


@dataclass(frozen=True, kw_only=True)
class Scale(Pointwise):
    """Multiplication by a constant of the architecture."""

    factor: float

    def code(self, p: Printer) -> str:
        return f"{p.inputs[0]} * {self.factor!r}"

    @property
    def label(self) -> str:
        return f"scale {self.factor!r}"


@dataclass(frozen=True, kw_only=True)
class SoftCap(Pointwise):
    """`cap * tanh(x / cap)` (Gemma 2, arXiv:2408.00118)."""

    cap: float

    def code(self, p: Printer) -> str:
        return f"{self.cap!r} * ({p.inputs[0]} / {self.cap!r}).tanh()"

    @property
    def label(self) -> str:
        return f"soft_cap {self.cap!r}"


@dataclass(frozen=True, kw_only=True)
class Upcast(Pointwise):
    """To at least float32: the residual stream of state-spaces' Mamba."""

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


def mul(b: Body, x: Value, y: Value) -> Value:
    return b.one(Mul(), x, y)


def add(b: Body, x: Value, y: Value) -> Value:
    return b.one(Add(), x, y)
