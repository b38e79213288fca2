"""Sizes: small exact integer expressions over named axes and the free symbols of a workload.

One expression is read three ways: evaluated to an integer, printed as the formula that a person reads, and printed
as the Python that a generated package computes. There are no floats and no rounding but explicit `//`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, cast

Bindings = Mapping[str, int]
NOTHING: Bindings = {}


class Size:
    """An exact integer expression. `str(size)` is a Python expression over the names it mentions."""

    __slots__ = ()
    _rank = 3  # binding strength when printed: 1 sum, 2 product, 3 atom

    def at(self, bindings: Bindings = NOTHING) -> int:
        """The value with free symbols bound. KeyError names a symbol that is not."""
        raise NotImplementedError  # an abstract base would make every isinstance slower, and sizes ask it all the time

    @property
    def value(self) -> int:
        """The value of a size without free symbols."""
        return self.at(NOTHING)

    def __add__(self, other: Size | int) -> Size:
        return add(self, other)

    def __radd__(self, other: int) -> Size:
        return add(other, self)

    def __sub__(self, other: Size | int) -> Size:
        return add(self, mul(-1, other))

    def __mul__(self, other: Size | int) -> Size:
        return mul(self, other)

    def __rmul__(self, other: int) -> Size:
        return mul(other, self)

    def __floordiv__(self, other: Size | int) -> Size:
        return FloorDiv(self, as_size(other))

    def _inside(self, rank: int) -> str:
        return str(self) if self._rank >= rank else f"({self})"


@dataclass(frozen=True, slots=True)
class Const(Size):
    number: int

    def at(self, bindings: Bindings = NOTHING) -> int:
        return self.number

    def __str__(self) -> str:
        return str(self.number)


@dataclass(frozen=True, slots=True)
class Symbol(Size):
    """A name. Axes carry their definition; B (batch), T (tokens) and P (tokens before them) are free."""

    name: str
    definition: Size | None = None

    def at(self, bindings: Bindings = NOTHING) -> int:
        if self.definition is not None:
            return self.definition.at(bindings)
        return bindings[self.name]

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Add(Size):
    terms: tuple[Size, ...]
    _rank = 1

    def at(self, bindings: Bindings = NOTHING) -> int:
        return sum(term.at(bindings) for term in self.terms)

    def __str__(self) -> str:
        return " + ".join(term._inside(1) for term in self.terms)


@dataclass(frozen=True, slots=True)
class Mul(Size):
    factors: tuple[Size, ...]
    _rank = 2

    def at(self, bindings: Bindings = NOTHING) -> int:
        product = 1
        for factor in self.factors:
            product *= factor.at(bindings)
        return product

    def __str__(self) -> str:
        return " * ".join(factor._inside(2) for factor in self.factors)


@dataclass(frozen=True, slots=True)
class FloorDiv(Size):
    numerator: Size
    denominator: Size
    _rank = 2

    def at(self, bindings: Bindings = NOTHING) -> int:
        return self.numerator.at(bindings) // self.denominator.at(bindings)

    def __str__(self) -> str:
        return f"{self.numerator._inside(2)} // {self.denominator._inside(3)}"

    def _inside(self, rank: int) -> str:
        return f"({self})"  # a product with a floor division does not associate


@dataclass(frozen=True, slots=True)
class Extremum(Size):
    """`min(a, b)` or `max(a, b)`."""

    which: str
    left: Size
    right: Size

    def at(self, bindings: Bindings = NOTHING) -> int:
        pick = min if self.which == "min" else max
        return pick(self.left.at(bindings), self.right.at(bindings))

    def __str__(self) -> str:
        return f"{self.which}({self.left}, {self.right})"


ZERO = Const(0)
ONE = Const(1)


def as_size(size: Size | int) -> Size:
    return Const(size) if isinstance(size, int) else size


def add(*terms: Size | int) -> Size:
    """The sum, constants folded and nested sums flattened."""
    flat: list[Size] = []
    constant = 0
    for term in terms:
        for part in term.terms if isinstance(term, Add) else (term,):
            if isinstance(part, int):
                constant += part
            elif isinstance(part, Const):
                constant += part.number
            else:
                flat.append(part)
    if constant or not flat:
        flat.append(Const(constant))
    return flat[0] if len(flat) == 1 else Add(tuple(flat))


def mul(*factors: Size | int) -> Size:
    """The product, constants folded to the front and nested products flattened."""
    flat: list[Size] = []
    constant = 1
    for factor in factors:
        for part in factor.factors if isinstance(factor, Mul) else (factor,):
            if isinstance(part, int):
                constant *= part
            elif isinstance(part, Const):
                constant *= part.number
            else:
                flat.append(part)
    if constant == 0:
        return ZERO
    if constant != 1 or not flat:
        flat.insert(0, Const(constant))
    return flat[0] if len(flat) == 1 else Mul(tuple(flat))


def minimum(left: Size | int, right: Size | int) -> Size:
    return Extremum("min", as_size(left), as_size(right))


def maximum(left: Size | int, right: Size | int) -> Size:
    return Extremum("max", as_size(left), as_size(right))


def ceil_div(numerator: Size | int, denominator: int) -> Size:
    return (as_size(numerator) + (denominator - 1)) // denominator


def symbols(size: Size) -> dict[str, Symbol]:
    """Every symbol of an expression by name, those that define others included, in order of first mention."""
    found: dict[str, Symbol] = {}
    if isinstance(size, Symbol):
        found[size.name] = size
        return found | (symbols(size.definition) if size.definition is not None else {})
    for field in fields(cast(Any, size)):
        held = getattr(size, field.name)
        for part in held if isinstance(held, tuple) else (held,):
            if isinstance(part, Size):
                found = {**found, **{name: s for name, s in symbols(part).items() if name not in found}}
    return found
