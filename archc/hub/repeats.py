"""A list of layers as nested repeats: the shortest text found, not thirty-two lines.

Before: `m m m m a m m m  m m m m a m m m`. After: `< m x4, a, m x3 > x2`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

EXHAUSTIVE = 96  # layers up to which all groupings are weighed; the cost grows with the third power


@dataclass(frozen=True)
class Run:
    """`count` passes over `items`; an item is a layer's word or a run within."""

    count: int
    items: tuple[str | Run, ...]


def rolled(words: Sequence[str]) -> Run:
    """All of `words` as one run, its count as large as it can be."""
    period = _period(words)
    count, rest = divmod(len(words), period)
    if not rest:
        return Run(count, _items(words[:period]))
    if count == 1:
        return Run(1, _items(words))
    return Run(1, (_run(count, _items(words[:period])), *_items(words[count * period :])))


def text(run: Run) -> str:
    """`x4 < m x4, a, m x3 >`, as it stands behind `block`."""
    repeat = f"x{run.count} " if run.count > 1 else ""
    return f"{repeat}< {', '.join(map(_item, run.items))} >"


def _item(item: str | Run) -> str:
    if isinstance(item, str):
        return item
    if len(item.items) == 1 and isinstance(item.items[0], str):
        return f"{item.items[0]} x{item.count}"
    return f"< {', '.join(map(_item, item.items))} > x{item.count}"


def _run(count: int, items: tuple[str | Run, ...]) -> Run:
    """A repeat of a repeat is one."""
    if len(items) == 1 and isinstance(items[0], Run):
        return Run(count * items[0].count, items[0].items)
    return Run(count, items)


def _period(words: Sequence[str]) -> int:
    """The least p with `words[i] == words[i + p]` throughout (Knuth, Morris and Pratt's failure function)."""
    border = [0] * len(words)
    k = 0
    for i in range(1, len(words)):
        while k and words[i] != words[k]:
            k = border[k - 1]
        k += words[i] == words[k]
        border[i] = k
    return len(words) - border[-1]


def _items(words: Sequence[str]) -> tuple[str | Run, ...]:
    if len(words) > EXHAUSTIVE:
        runs = ((word, len(list(same))) for word, same in groupby(words))
        return tuple(word if n == 1 else Run(n, (word,)) for word, n in runs)
    return _Shortest(words).items(0, len(words))


class _Shortest:
    """The fewest items and brackets, by dynamic programming over all stretches of `words`."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = words
        n = len(words)
        # alike[i][j]: how far words[i:] and words[j:] agree
        self.alike = [[0] * (n + 1) for _ in range(n + 1)]
        for i in range(n - 1, -1, -1):
            for j in range(n - 1, i, -1):
                self.alike[i][j] = self.alike[i + 1][j + 1] + 1 if words[i] == words[j] else 0
        self.cost = [[0] * (n + 1) for _ in range(n + 1)]
        self.choice = [[0] * (n + 1) for _ in range(n + 1)]  # p > 0: repeats words[i:i+p]; -k: splits at k
        for width in range(1, n + 1):
            for i in range(n - width + 1):
                self.cost[i][i + width], self.choice[i][i + width] = self._best(i, i + width)

    def _best(self, i: int, j: int) -> tuple[int, int]:
        """The least cost of words[i:j] and the choice that has it: a repeat before a split, the shorter one first."""
        width = j - i
        if width == 1:
            return 1, 1
        ways = [
            (1 if p == 1 else 1 + self.cost[i][i + p], 0, p)
            for p in range(1, width // 2 + 1)
            if width % p == 0 and self.alike[i][i + p] >= width - p
        ]
        ways += [(self.cost[i][k] + self.cost[k][j], 1, -k) for k in range(i + 1, j)]
        cost, _, choice = min(ways)
        return cost, choice

    def items(self, i: int, j: int) -> tuple[str | Run, ...]:
        """What stands for words[i:j]."""
        choice = self.choice[i][j]
        if j - i == 1:
            return (self.words[i],)
        if choice < 0:
            return (*self.items(i, -choice), *self.items(-choice, j))
        return (_run((j - i) // choice, self.items(i, i + choice)),)
