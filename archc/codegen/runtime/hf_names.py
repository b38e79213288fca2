"""Which of our tensors is which of theirs, by the rows of hub.py.

A row is (ours, theirs), with `*` for a layer's index. A last `[*]` on our side is the expert's index in a stacked
tensor, of which they have one tensor each. The i-th `*` is the same number on both sides:

    ("layers.*.mixer.q_proj.weight", "model.layers.*.self_attn.q_proj.weight")
    ("layers.*.mlp.experts.up_proj[*]", "model.layers.*.mlp.experts.*.up_proj.weight")

Where several rows fit a tensor, the one with the fewest `*` names it. A second row for one name of ours is another name
of the same tensor there, which a file may or may not hold: a tied head.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .hub import ROWS
from .shards import CheckpointError, Info, listed


@dataclass(frozen=True)
class Pair:
    """One of our tensors and theirs: a single one of the same shape, or one for every slice along the first axis."""

    ours: str
    info: Info
    theirs: tuple[str, ...]
    stacked: bool

    @property
    def their_shape(self) -> tuple[int, ...]:
        return self.info.shape[1:] if self.stacked else self.info.shape


def pairs(tensors: Mapping[str, Info], rows: Iterable[tuple[str, str]] = ROWS) -> list[Pair]:
    """Every tensor of ours with its counterparts, by the row that says most about it."""
    table = [_Row.read(ours, theirs) for ours, theirs in rows]
    found, unknown = [], []
    for name, info in tensors.items():
        fitting = [(row, match) for row in table if (match := row.ours.fullmatch(name))]
        if fitting:
            row, match = min(fitting, key=lambda fit: len(fit[1].groups()))
            indices = range(info.shape[0]) if row.stacked else ()
            numbers = [(*match.groups(), str(i)) for i in indices] if row.stacked else [match.groups()]
            found.append(Pair(name, info, tuple(map(row.theirs, numbers)), row.stacked))
        else:
            unknown.append(name)
    twice = [name for name, n in Counter(name for pair in found for name in pair.theirs).items() if n > 1]
    if unknown or twice:
        raise CheckpointError(
            "hub.py does not fit this model"
            + lines({"tensors without a name there": unknown, "names that two tensors have there": twice})
        )
    return found


def tied_names(tied: Mapping[str, str], rows: Iterable[tuple[str, str]] = ROWS) -> dict[str, str]:
    """Their other names of tensors, each with the name that a file always has; `tied` is ours, alias to name."""
    rows = list(rows)
    first = {ours: theirs for ours, theirs in reversed(rows) if ours not in tied}
    names = ((theirs, first.get(tied.get(ours, ours), theirs)) for ours, theirs in rows)
    return {other: name for other, name in names if other != name}


def lines(problems: Mapping[str, list[str]]) -> str:
    """Problems by kind, a line each; nothing where there are none."""
    return "".join(f"\n{what}: {listed(names)}" for what, names in problems.items() if names)


@dataclass(frozen=True)
class _Row:
    """A row of hub.py, ready to be matched."""

    ours: re.Pattern[str]
    parts: tuple[str, ...]
    stacked: bool

    @classmethod
    def read(cls, ours: str, theirs: str) -> _Row:
        if ours.count("*") != theirs.count("*"):
            raise CheckpointError(f"hub.py: {ours} and {theirs} have different numbers of *")
        name = ours.removesuffix("[*]")
        pattern = re.escape(name).replace(r"\*", r"(\d+)")
        return cls(re.compile(pattern), tuple(theirs.split("*")), name != ours)

    def theirs(self, numbers: Iterable[str]) -> str:
        return "".join(part + number for part, number in zip(self.parts, (*numbers, ""), strict=True))
