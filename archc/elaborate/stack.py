"""Repeats, groups and suffixes: the items of a `block` to a rolled stack of layers.

A suffix word with `every N offset K` counts the layers of its bracket, all its repeats included. Instead of unrolling,
the counters' phases are carried along; a bracket repeats itself as soon as its phases do.

Before: `block x1000000000 < mamba > moe every 2 top2/16`
After:  `Repeat(500000000, (mamba, moe of mamba))`
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

from archc.diagnostics import DiagnosticError, Span, error
from archc.elaborate.bind import Environment
from archc.elaborate.draft import DraftLayer
from archc.elaborate.findings import Findings
from archc.elaborate.macros import Macros
from archc.elaborate.suffix import Suffix, suffix_of, without_effect
from archc.elaborate.values import MAX_SIZE
from archc.grammar.tree import Block, Group, Item, Single, Word
from archc.ir.graph import Layer, Repeat, Stack, Use

MAX_ELEMENTS = 10_000  # of a rolled stack; more is a spec whose suffixes never come around
MAX_NESTING = 64  # brackets inside brackets; `let` could nest them without end


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
    """Expands the items of all blocks, one after the other."""

    def __init__(self, macros: Macros, env: Environment, resolve: Resolve, report: Findings) -> None:
        self.macros = macros
        self.env = env
        self.resolve = resolve
        self.report = report
        self._elements = 0
        self._total = 0
        self._sizes: dict[int, tuple[int, int]] = {}
        self._suffixes: dict[int, tuple[Suffix, int] | None] = {}
        self._singles: dict[int, tuple[Item, ...]] = {}
        self._drafts: dict[int, DraftLayer | None] = {}
        self._resolved: dict[tuple[object, ...], Layer | None] = {}

    def block(self, block: Block, outer: list[Counter], phases: Phases) -> Expanded:
        """The layers of a block, and the phases behind it. Raises DiagnosticError if it has no end."""
        repeat = block.repeat.count if block.repeat else 1
        self._total += self._times(self._measure(block.items, 1)[0], repeat, block.span)
        if self._total > MAX_SIZE:
            message = f"a model has at most {MAX_SIZE:,} layers"
            raise DiagnosticError(error("too-large", message, block.span, help="check the repeats"))
        return self._bracket(block.items, repeat, block.suffix, outer, phases)

    def finish(self) -> None:
        """Report the suffixes that changed nothing anywhere."""
        for suffix, total in filter(None, self._suffixes.values()):
            if not suffix.used:
                self.report.add(without_effect(suffix, total))

    # --- how many layers there are ------------------------------------------------------------------

    def _measure(self, items: Sequence[Item], depth: int) -> tuple[int, int]:
        """How many layers a bracket has, without its own repeat, and how deep it is."""
        key = id(items)
        if key not in self._sizes and depth <= MAX_NESTING:
            measured = [self._measure_item(item, depth) for item in items]
            self._sizes[key] = sum(size for size, _ in measured), 1 + max(height for _, height in measured)
        if depth + self._sizes.get(key, (0, MAX_NESTING))[1] > MAX_NESTING + 1:
            message = f"groups are nested more than {MAX_NESTING} deep"
            raise DiagnosticError(
                error("nesting-too-deep", message, items[0].span, help="put some of them side by side")
            )
        return self._sizes[key]

    def _measure_item(self, item: Item, depth: int) -> tuple[int, int]:
        group = item if isinstance(item, Group) else self.macros.group(item.layer)
        size, height = self._measure(group.items, depth + 1) if group is not None else (1, 0)
        if group is not None and group is not item:
            size = self._times(size, group.repeat.count if group.repeat else 1, group.span)
        return self._times(size, item.repeat.count if item.repeat else 1, item.span), height

    def _times(self, size: int, repeat: int, span: Span) -> int:
        if size * repeat > MAX_SIZE:
            message = f"a model has at most {MAX_SIZE:,} layers"
            raise DiagnosticError(error("too-large", message, span, help="check the repeats"))
        return size * repeat

    # --- the layers -------------------------------------------------------------------------------

    def _bracket(
        self, items: tuple[Item, ...], repeat: int, words: tuple[Word, ...], outer: list[Counter], phases: Phases
    ) -> Expanded:
        """`< items > xN words` inside brackets whose suffixes stand at `phases`."""
        total = self._measure(items, 1)[0] * repeat
        own = [suffix for word in words if (suffix := self._suffix(word, total)) is not None]
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
            result += once if rounds == 1 or not once else [_repeat(rounds, once)]
            result += [e for elements in cycle[:rest] for e in elements]
            now = {index: phase for phase, index in seen.items()}[first + rest]
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
            return self._bracket(item.items, repeat, item.suffix, active, phases)
        group = self.macros.group(item.layer)
        if group is not None:
            return self._bracket(self._alone(item, group), repeat, item.suffix, active, phases)
        if item.repeat or item.suffix:
            plain = Single(layer=item.layer, span=item.layer.span)
            return self._bracket(self._alone(item, plain), repeat, item.suffix, active, phases)
        return self._leaf(item, active, phases)

    def _alone(self, item: Item, inner: Item) -> tuple[Item, ...]:
        """A bracket of one item; its size is known by its identity, so it is kept."""
        if id(item) not in self._singles:
            self._singles[id(item)] = (inner,)
        return self._singles[id(item)]

    def _leaf(self, item: Single, active: list[Counter], phases: Phases) -> Expanded:
        if self.report.is_full:
            raise DiagnosticError()
        self._elements += 1
        if self._elements > MAX_ELEMENTS:
            message = f"the suffixes and copies of this model come around after more than {MAX_ELEMENTS:,} layers"
            raise DiagnosticError(error("period-too-long", message, item.span, help="use smaller or related periods"))
        saying = [s for s, phase in zip(active, phases, strict=True) if isinstance(s, Suffix) and s.applies(phase)]
        for suffix in saying:
            suffix.spoke = True
        copies = {c.name: phase for c, phase in zip(active, phases, strict=True) if isinstance(c, CopyCounter)}
        draft = self._draft(item)
        if draft is None:
            for suffix in saying:
                suffix.used = True  # it might have had an effect
            return (), _advance(active, phases, [])
        uses = [made.share.name for made in draft if made.share]
        key = (id(item.layer), *(id(suffix) for suffix in saying), *(copies[name] for name in uses))
        if key not in self._resolved:
            self._resolved[key] = self._resolve(draft, saying, copies)
        layer = self._resolved[key]
        return ((Use(layer),) if layer else ()), _advance(active, phases, uses)

    def _draft(self, item: Single) -> DraftLayer | None:
        """The layer with its macros expanded; None if something is wrong with it."""
        key = id(item.layer)
        if key not in self._drafts:
            try:
                self._drafts[key] = self.macros.layer(item.layer)
            except DiagnosticError as failure:
                self.report.add(*failure.diagnostics)
                self._drafts[key] = None
        return self._drafts[key]

    def _resolve(self, draft: DraftLayer, saying: list[Suffix], copies: dict[str, int]) -> Layer | None:
        try:
            return self.resolve(draft, saying, copies)
        except DiagnosticError as failure:
            self.report.add(*failure.diagnostics)
            for suffix in saying:
                suffix.used = True  # it might have had an effect
            return None

    def _suffix(self, word: Word, total: int) -> Suffix | None:
        """The suffix that a word is, the same each time that its bracket is entered."""
        if id(word) not in self._suffixes:
            self._suffixes[id(word)] = None
            try:
                self._suffixes[id(word)] = suffix_of(word, self.env, total), total
            except DiagnosticError as failure:
                self.report.add(*failure.diagnostics)
        made = self._suffixes[id(word)]
        return made[0] if made else None


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
    known: dict[Stack, int] = {}
    names = [known.setdefault(element, len(known)) for element in stack]  # equal elements have equal names
    i = 0
    result: list[Stack] = []
    while i < len(stack):
        width, times = _best_run(names, i)
        if times > 1:
            result.append(_repeat(times, stack[i : i + width]))
        else:
            result.append(stack[i])
        i += width * times
    return tuple(result)


def _best_run(names: list[int], i: int) -> tuple[int, int]:
    """The stretch at `i` whose repetition covers most: (its width, how often)."""
    best = (1, 1)
    for width in range(1, (len(names) - i) // 2 + 1):
        if names[i] != names[i + width]:
            continue
        unit, times = names[i : i + width], 1
        while names[i + times * width : i + (times + 1) * width] == unit:
            times += 1
        if times > 1 and width * times > prod(best):
            best = (width, times)
    return best


def _repeat(times: int, unit: tuple[Stack, ...]) -> Repeat:
    if len(unit) == 1 and isinstance(unit[0], Repeat):
        return Repeat(times * unit[0].count, unit[0].body)
    return Repeat(times, unit)
