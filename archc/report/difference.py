"""What changes from one model to another: structure, stored tensors, and every figure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import ndiff

from archc import units
from archc.passes.params import Tensor
from archc.report.analysis import Analysis
from archc.report.figures import Figure, figures
from archc.report.sizing import Sizing

Row = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two models."""

    name: str
    analysis: Analysis
    sizing: Sizing | None = None

    @property
    def figures(self) -> tuple[Figure, ...]:
        return tuple(figures(self.analysis, self.sizing))


def difference_text(before: Side, after: Side) -> str:
    """As text, with a line end."""
    return "\n".join(line.rstrip() for line in _lines(before, after)) + "\n"


def _lines(before: Side, after: Side) -> Iterator[str]:
    yield f"- {before.name}"
    yield f"+ {after.name}"
    workload = after.analysis.workload
    yield f"  {units.exact(workload.batch)} x {units.exact(workload.context)} tokens, {workload.dtype}"
    parts = {
        "structure": tuple(_structure(before.analysis, after.analysis)),
        "sizes": tuple(_aligned(_sizes(before.analysis, after.analysis))),
        "tensors": tuple(_aligned(_tensors(before.analysis, after.analysis))),
        "budgets": tuple(_aligned(_budgets(before, after))),
    }
    for title, lines in parts.items():
        if lines:
            yield from ("", title, *(f"  {line}" for line in lines))
    if not any(parts.values()):
        yield from ("", "no difference")


def _structure(before: Analysis, after: Analysis) -> Iterator[str]:
    old, new = before.outline.text.splitlines(), after.outline.text.splitlines()
    if old != new:
        yield from (line for line in ndiff(old, new) if not line.startswith("?"))


def _sizes(before: Analysis, after: Analysis) -> Iterator[Row]:
    old, new = (dict(side.outline.sizes) for side in (before, after))
    for name in {**old, **new}:
        if old.get(name) != new.get(name):
            yield name, _values(old.get(name)), "->", _values(new.get(name))


def _values(values: tuple[int, ...] | None) -> str:
    return "none" if values is None else ", ".join(map(units.exact, values))


def _tensors(before: Analysis, after: Analysis) -> Iterator[Row]:
    """By name, shape and how many: what one model stores and the other does not."""
    old, new = (_stored(side) for side in (before, after))
    for key in {**old, **new}:
        count = new.get(key, 0) - old.get(key, 0)
        if count:
            name, shape = key
            text = f"[{', '.join(map(units.exact, shape))}]"
            yield "+" if count > 0 else "-", name, text, f"x {units.exact(abs(count))}"


def _stored(analysis: Analysis) -> dict[tuple[str, tuple[int, ...]], int]:
    found: dict[tuple[str, tuple[int, ...]], int] = {}
    for tensor in analysis.params.tensors:
        found[_key(tensor)] = found.get(_key(tensor), 0) + tensor.times
    return found


def _key(tensor: Tensor) -> tuple[str, tuple[int, ...]]:
    return tensor.name, tensor.shape


def _budgets(before: Side, after: Side) -> Iterator[Row]:
    for old, new in zip(before.figures, after.figures, strict=True):
        if old.value != new.value:
            change = new.value - old.value
            exact = f"{'+' if change > 0 else ''}{units.exact(change)} {new.unit}"
            yield new.label, old.text, "->", new.text, exact, _relative(old.value, change)


def _relative(old: int, change: int) -> str:
    return f"{'+' if change > 0 else '-'}{units.percent(abs(change), old)}" if old else ""


def _aligned(rows: Iterator[Row]) -> Iterator[str]:
    held = list(rows)
    widths = [max(len(row[i]) for row in held) for i in range(len(held[0]))] if held else []
    for row in held:
        yield "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
