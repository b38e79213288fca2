"""Repeats, groups and suffixes: the items of a `block` to a rolled stack of layers.

A suffix word with `every N offset K` counts the layers of its bracket, all its repeats included. Instead of unrolling,
the counters' phases are carried along; a bracket repeats itself as soon as its phases do.

Before: `block x1000000000 < mamba > moe every 2 top2/16`
After:  `Repeat(500000000, (mamba, moe of mamba))`
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

from archc.diagnostics import Diagnostic, DiagnosticError, Report, error
from archc.elaborate.bind import Environment
from archc.elaborate.constants import evaluate
from archc.elaborate.draft import DraftLayer, Macros
from archc.grammar.tree import At, Every, Expr, Group, Item, Single, Word
from archc.ir.graph import Layer, Repeat, Stack, Use

MAX_ELEMENTS = 20_000  # of a rolled stack; more is a spec whose suffixes never come around


@dataclass
class Suffix:
    """A suffix word in force: which layers of its bracket it speaks of, and whether it ever said anything."""

    word: Word
    period: int = 1
    offset: int = 0
    layers: frozenset[int] | None = None
    used: bool = False

    def applies(self, phase: int) -> bool:
        return phase in self.layers if self.layers is not None else phase == self.offset

    def next(self, phase: int) -> int:
        """The phase one layer later. Past the last listed layer nothing changes any more."""
        if self.layers is not None:
            return min(phase + 1, max(self.layers) + 1)
        return (phase + 1) % self.period


@dataclass(frozen=True)
class CopyCounter:
    """Which copy of a shared module comes next. It runs on across brackets, repeats and blocks."""

    name: str
    copies: int


Phases = tuple[int, ...]
Expanded = tuple[tuple[Stack, ...], Phases]
Counter = Suffix | CopyCounter
Resolve = Callable[[DraftLayer, list[Suffix], dict[str, int]], Layer | None]


class StackBuilder:
    """Expands the items of one block."""

    def __init__(self, macros: Macros, env: Environment, resolve: Resolve, report: Report) -> None:
        self.macros = macros
        self.env = env
        self.resolve = resolve
        self.report = report
        self._elements = 0

    def bracket(
        self, items: tuple[Item, ...], repeat: int, words: tuple[Word, ...], outer: list[Counter], phases: Phases
    ) -> Expanded:
        """`< items > xN words` inside brackets whose suffixes stand at `phases`."""
        own = [suffix for word in words if (suffix := self._suffix(word)) is not None]
        active: list[Counter] = [*outer, *own]
        start = (*phases, *(0 for _ in own))
        passes: list[tuple[Stack, ...]] = []
        seen: dict[Phases, int] = {}
        now = start
        while len(passes) < repeat and now not in seen:
            seen[now] = len(passes)
            elements, now = self._items(items, active, now)
            passes.append(elements)
        result = [element for elements in passes for element in elements]
        if len(passes) < repeat:
            first = seen[now]
            cycle = passes[first:]
            rounds, rest = divmod(repeat - first, len(cycle))
            result = [e for elements in passes[:first] for e in elements]
            once = tuple(e for elements in cycle for e in elements)
            result += once if rounds == 1 else [_repeat(rounds, once)]
            result += [e for elements in cycle[:rest] for e in elements]
            now = {index: phase for phase, index in seen.items()}[first + rest]
        for suffix in own:
            if not suffix.used:
                self.report.add(_without_effect(suffix.word))
        return roll(tuple(result)), now[: len(outer)]

    def _items(self, items: tuple[Item, ...], active: list[Counter], phases: Phases) -> Expanded:
        result: list[Stack] = []
        for item in items:
            elements, phases = self._item(item, active, phases)
            result += elements
        return tuple(result), phases

    def _item(self, item: Item, active: list[Counter], phases: Phases) -> Expanded:
        repeat = item.repeat.count if item.repeat else 1
        if isinstance(item, Group):
            return self.bracket(item.items, repeat, item.suffix, active, phases)
        group = self.macros.group(item.layer)
        if group is not None:
            return self.bracket((group,), repeat, item.suffix, active, phases)
        if item.repeat or item.suffix:
            plain = Single(layer=item.layer, span=item.layer.span)
            return self.bracket((plain,), repeat, item.suffix, active, phases)
        return self._leaf(item, active, phases)

    def _leaf(self, item: Single, active: list[Counter], phases: Phases) -> Expanded:
        self._elements += 1
        if self._elements > MAX_ELEMENTS:
            message = f"the suffixes of this block only come around after more than {MAX_ELEMENTS} layers"
            raise DiagnosticError(error("period-too-long", message, item.span, help="use smaller or related periods"))
        saying = [s for s, phase in zip(active, phases, strict=True) if isinstance(s, Suffix) and s.applies(phase)]
        copies = {c.name: phase for c, phase in zip(active, phases, strict=True) if isinstance(c, CopyCounter)}
        after = phases
        try:
            draft = self.macros.layer(item.layer, self.env)
            after = _advance(active, phases, [made.share.name for made in draft if made.share])
            layer = self.resolve(draft, saying, copies)
        except DiagnosticError as failure:
            self.report.add(*failure.diagnostics)
            for suffix in saying:
                suffix.used = True  # it might have had an effect
            return (), after
        return ((Use(layer),) if layer else ()), after

    def _suffix(self, word: Word) -> Suffix | None:
        try:
            for tag in word.tags:
                if isinstance(tag, Every):
                    return self._every(word, tag)
                if isinstance(tag, At):
                    return self._at(word, tag)
        except DiagnosticError as failure:
            self.report.add(*failure.diagnostics)
            return None
        return Suffix(word)

    def _every(self, word: Word, tag: Every) -> Suffix:
        period = self._integer(tag.period, 1)
        offset = period - 1 if tag.offset is None else self._integer(tag.offset, 0)
        if offset >= period:
            assert tag.offset is not None
            message = f"an offset counts from 0 to {period - 1} in a period of {period}, and {offset} is outside"
            raise DiagnosticError(error("offset-outside", message, tag.offset.span, help=f"0 to {period - 1}"))
        return Suffix(word, period, offset)

    def _at(self, word: Word, tag: At) -> Suffix:
        layers: set[int] = set()
        for part in tag.layers.items:
            start = self._integer(part.start, 0)
            stop = start if part.stop is None else self._integer(part.stop, 0)
            if stop < start or stop - start > MAX_ELEMENTS:
                raise DiagnosticError(error("wrong-range", f"{start}..{stop} is not a range of layers", part.span))
            layers.update(range(start, stop + 1))
        if not layers:
            raise DiagnosticError(error("wrong-range", "`at` needs at least one layer", tag.span))
        return Suffix(word, layers=frozenset(layers))

    def _integer(self, expr: Expr, least: int) -> int:
        value = evaluate(expr, self.env.lookup)
        if value.denominator != 1 or value < least:
            message = f"this counts layers, so it is a whole number from {least} on"
            raise DiagnosticError(error("not-a-count", message, expr.span))
        return int(value)


def _advance(active: list[Counter], phases: Phases, uses: list[str]) -> Phases:
    """The phases one layer later; `uses` are the shared modules that the layer runs."""
    return tuple(
        (phase + uses.count(counter.name)) % counter.copies if isinstance(counter, CopyCounter) else counter.next(phase)
        for counter, phase in zip(active, phases, strict=True)
    )


def roll(stack: tuple[Stack, ...]) -> tuple[Stack, ...]:
    """Adjacent equal stretches as repeats, the longest gain first; a repeat of a repeat becomes one.

    Before: `(a, b, a, b, a, b, c)`. After: `(Repeat(3, (a, b)), c)`.
    """
    if len(stack) > 512:
        return stack
    i = 0
    result: list[Stack] = []
    while i < len(stack):
        width, times = _best_run(stack, i)
        if times > 1:
            result.append(_repeat(times, stack[i : i + width]))
        else:
            result.append(stack[i])
        i += width * times
    return tuple(result)


def _best_run(stack: tuple[Stack, ...], i: int) -> tuple[int, int]:
    """The stretch at `i` whose repetition covers most: (its width, how often)."""
    best = (1, 1)
    for width in range(1, (len(stack) - i) // 2 + 1):
        unit, times = stack[i : i + width], 1
        while stack[i + times * width : i + (times + 1) * width] == unit:
            times += 1
        if times > 1 and width * times > prod(best):
            best = (width, times)
    return best


def _repeat(times: int, unit: tuple[Stack, ...]) -> Repeat:
    if len(unit) == 1 and isinstance(unit[0], Repeat):
        return Repeat(times * unit[0].count, unit[0].body)
    return Repeat(times, unit)


def _without_effect(word: Word) -> Diagnostic:
    message = f"`{word.ident.name}` changes no layer of its bracket"
    return error("suffix-without-effect", message, word.span, help="remove it, or check its period and its fields")
