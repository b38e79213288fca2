"""What flows through a layer and what it owns: axes, values, weights and state."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from itertools import count
from typing import Literal

from archc.ir.size import ONE, Const, Size, Symbol, mul

_serial = count()


@dataclass(frozen=True, slots=True)
class Axis:
    """A named dimension: `d_inner` of size `2 * d_model`."""

    name: str
    size: Size

    @property
    def symbol(self) -> Symbol:
        """The axis as it stands in formulas: its name, defined by its size."""
        return self.size if isinstance(self.size, Symbol) else Symbol(self.name, self.size)

    def __str__(self) -> str:
        return self.name


BATCH = Axis("B", Symbol("B"))
TIME = Axis("T", Symbol("T"))

ValueType = Literal["activation", "index", "plan", "kv"]

# What the emitted code calls values that are no plain tensors, where a module takes or gives them.
ANNOTATIONS: dict[ValueType, tuple[str, str]] = {"kv": (".attention_kv", "KeysValues")}


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """The result of one op: `[B, T, d_inner]`. Values are compared by identity.

    `name` is what the author of the layer called it; None means that it was never named, so that the printer may
    write its expression where it is used.
    """

    axes: tuple[Axis, ...]
    name: str | None = None
    type: ValueType = "activation"
    serial: int = field(default_factory=lambda: next(_serial))

    @property
    def is_tensor(self) -> bool:
        return self.type in ("activation", "index")

    @property
    def shape(self) -> str:
        return "[" + ", ".join(axis.name for axis in self.axes) + "]"

    @property
    def width(self) -> Axis:
        """The last axis."""
        return self.axes[-1]


def numel(axes: tuple[Axis, ...]) -> Size:
    """Number of elements of a tensor over these axes."""
    return mul(*(axis.symbol for axis in axes)) if axes else ONE


@dataclass(frozen=True, slots=True)
class Init:
    """How a weight starts: the name of a function of the package's `initialise.py` and its arguments."""

    function: str
    arguments: tuple[float | int, ...] = ()
    residual_out: bool = False  # std is divided by sqrt(number of residual adds), as GPT-2 and Mamba do
    module: str = ".initialise"  # another file of the package for what only one op begins with


@dataclass(frozen=True, slots=True)
class Weight:
    """One stored tensor. `path` is relative to the layer kind that owns it: `in_proj.weight`."""

    path: str
    axes: tuple[Axis, ...]
    init: Init
    decay: bool = True
    keep_fp32: bool = False
    int8: bool = False  # stored as whole numbers whatever the model's dtype, and never trained
    active: Fraction = Fraction(1)  # share of it that one token uses: top_k / n_experts for a routed expert

    @property
    def numel(self) -> int:
        return numel(self.axes).value


@dataclass(frozen=True, slots=True)
class State:
    """What one sequence keeps between tokens, for one use of an op: `ssm [d_inner, d_state]` in fp32.

    `kind` says which budget it is counted in; `dtype` which part of the precision policy decides its type.
    """

    name: str
    axes: tuple[Axis, ...]
    kind: Literal["kv", "ssm", "conv"]
    dtype: Literal["kv", "state", "activation"]
    record: tuple[str, str] = ("", "")  # file and NamedTuple that holds `kv.k` and its like, and the length, as `kv`

    @property
    def numel(self) -> Size:
        return numel(self.axes)


def constant_axis(name: str, size: int) -> Axis:
    return Axis(name, Const(size))
