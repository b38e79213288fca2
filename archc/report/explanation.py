"""Where a figure is from: its formula with the sizes of this model put in, and the lines of the spec that say them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

from archc import units
from archc.passes.terms import Binding, Term

WIDEST = 100  # columns up to which a cell may push its neighbours away


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a spec."""

    number: int
    text: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """`about` says what the figure means and by which convention; `terms` add up to `total`, where there are any.

    `steps` are what cannot be written as a sum of products: label, formula or remark, value. `origins` are the names in
    the formulas with their values, and the lines that they are from.
    """

    topic: str
    about: str
    unit: str
    terms: tuple[Term, ...] = ()
    steps: tuple[tuple[str, str, str], ...] = ()
    origins: tuple[tuple[Binding, tuple[Line, ...]], ...] = ()
    layers: tuple[tuple[str, tuple[Line, ...]], ...] = ()

    @property
    def total(self) -> int:
        return sum(term.total for term in self.terms)


def explanation_text(explanation: Explanation) -> str:
    """As text, with a line end."""
    return "\n".join(line.rstrip() for line in _lines(explanation)) + "\n"


def _lines(explanation: Explanation) -> Iterator[str]:
    yield f"{explanation.topic}: {explanation.about}"
    for group, terms in groupby(explanation.terms, key=lambda term: (term.group, term.times)):
        yield ""
        yield from _group(*group, tuple(terms))
    if explanation.terms:
        yield ""
        yield f"total {_amount(explanation.total, explanation.unit)}"
    if explanation.steps:
        yield ""
        yield from _aligned(explanation.steps)
    if explanation.origins:
        yield ""
        yield "where"
        yield from _aligned(_origins(explanation))
    if explanation.layers:
        yield ""
        yield "layers"
        yield from _aligned(
            ("" if i else name, _said((line,)), "")
            for name, lines in explanation.layers
            for i, line in enumerate(lines)
        )


def _group(name: str, times: int, terms: tuple[Term, ...]) -> Iterator[str]:
    once = sum(term.value for term in terms)
    count = f"  {units.exact(times)} x {units.exact(once)} = {units.exact(times * once)}" if times > 1 else ""
    yield f"{name}{count}"
    yield from _aligned((term.name, _formula(term), f"= {units.exact(term.value)}") for term in terms)


def _formula(term: Term) -> str:
    """`n_heads * d_head x 2 B`."""
    if not term.factor:
        return term.formula
    inside = f"({term.formula})" if " + " in term.formula else term.formula
    return f"{inside} x {term.factor}"


def _origins(explanation: Explanation) -> Iterator[tuple[str, str, str]]:
    for binding, lines in explanation.origins:
        value = units.exact(binding.value)
        yield binding.name, f"{binding.definition} = {value}" if binding.definition else value, _said(lines)


def _said(lines: tuple[Line, ...]) -> str:
    return "; ".join(f"line {line.number}: {line.text}" for line in lines)


def _aligned(rows: Iterable[tuple[str, str, str]]) -> Iterator[str]:
    """Three columns; one that is very wide does not push the next away."""
    held = list(rows)
    widths = [max((len(row[i]) for row in held if len(row[i]) <= WIDEST), default=0) for i in range(2)]
    for label, middle, last in held:
        yield f"  {label:<{widths[0]}}  {middle:<{widths[1]}}  {last}"


def _amount(n: int, unit: str) -> str:
    short = {"B": units.binary_bytes, "FLOP": units.flops}.get(unit, units.count)(n)
    return f"{units.exact(n)} {unit}" + (f" ({short})" if n >= 1000 else "")
