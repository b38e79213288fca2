"""Which of our tensors is which of theirs, by the rows of a family in hub.py.

A row is (ours, theirs), with `*` for a layer's index. The i-th `*` is the same number on both sides:

    ("layers.*.mixer.q_proj.weight", "model.layers.*.self_attn.q_proj.weight")

A last `[...]` says that the two are not alike:

    ("layers.*.mlp.experts.up_proj[*]", "layers.*.experts.*.up_proj.weight")  one of theirs for each slice of ours
    ("layers.*.mlp.up_proj.weight", "layers.*.mlp.gate_up_proj.weight[1]")    the second of the pieces of theirs
    ("layers.*.mixer.k_proj.weight", "transformer.h.*.attn.attn.weight[1/4]") the second in each of 4 groups of rows
    ("layers.*.mixer.in_proj.weight", "layers.*.mamba.in_proj.weight[::2]")   two halves of ours, row by row in theirs
    ("layers.*.mixer.A_log", "layers.*.mamba.A_log[None]")                    theirs has a first axis of one more

Words in braces stand for the uses of a shared module, which `uses` of the family lists: `{use}` is the layer of a use,
`{nth}` its number among all uses, `{copy}` the copy that it runs, and `{home}` the first layer that runs this copy. In
place of `{home}`, `{each}` says that all layers that run the copy hold the tensor, the same in every one:

    ("g.{copy}.mixer.q_proj.weight", "model.layers.{home}.shared_transformer.self_attn.q_proj.weight")

Where several rows fit a tensor, the one with the fewest `*` names it. A second row for one name of ours is another name
of the same tensor there, which a file may or may not hold: a tied head, or a shared tensor outside of its home.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .shards import CheckpointError, Info, listed

_WORD = re.compile(r"(\*|\{use\}|\{copy\})")
_NUMBER = {"*": r"(\d+)", "{use}": r"(?P<use>\d+)", "{copy}": r"(?P<copy>\d+)"}
_ENDING = re.compile(r"\[(?:(\d+)(?:/(\d+))?|::(\d+)|(None))\]$")  # a piece, of groups, so many ways, a further axis


@dataclass(frozen=True)
class Pair:
    """One of our tensors and its place in theirs: a whole tensor, a piece of one, or one for every slice of ours.

    `again` are tensors that always hold the same once more, `perhaps` those that a file may leave out.
    """

    ours: str
    info: Info
    theirs: tuple[str, ...]
    their_shape: tuple[int, ...]
    stacked: bool = False
    piece: int | None = None
    groups: int = 1
    start: int = 0
    ways: int = 1
    again: tuple[str, ...] = ()
    perhaps: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All of theirs that always hold it."""
        return (*self.theirs, *self.again)

    @property
    def rows(self) -> slice | None:
        """The rows of theirs that hold ours, if they are not all."""
        if self.piece is None or self.groups > 1:
            return None
        return slice(self.start, self.start + self.info.shape[0])

    def from_theirs(self, content: Tensor) -> Tensor:
        """What of ours is in `content`, a tensor of theirs or our rows of it."""
        if self.groups > 1:
            start, length = self.start // self.groups, self.info.shape[0] // self.groups
            content = content.reshape(self.groups, -1, *content.shape[1:])[:, start : start + length]
        if self.ways > 1:
            content = content.reshape(-1, self.ways, *content.shape[1:]).transpose(0, 1)
        return content.reshape(self.info.shape[1:] if self.stacked else self.info.shape)

    def to_theirs(self, content: Tensor) -> Tensor:
        """The same in their order; what has a further axis there has the same bytes."""
        if self.ways == 1:
            return content
        return content.reshape(self.ways, -1, *content.shape[1:]).transpose(0, 1)


def pairs(
    tensors: Mapping[str, Info],
    rows: Iterable[tuple[str, str]],
    uses: Sequence[tuple[int, int]] = (),
) -> list[Pair]:
    """Every tensor of ours with its counterparts, by the row that says most about it."""
    table = [_Row.read(ours, theirs) for ours, theirs in rows]
    found, unknown = [], []
    for name, info in tensors.items():
        fitting = [(row, match) for row in table if (match := row.fit(name, uses))]
        if fitting:
            row, match = min(fitting, key=lambda fit: fit[0].stars)
            found.append(row.pair(info, match, uses))
        else:
            unknown.append(name)
    taken = Counter(name for pair in found if pair.piece is None for name in pair.names)
    joined = _joined(found)
    twice = [name for name, n in (taken + Counter(joined.keys())).items() if n > 1]
    twice += [name for name, members in joined.items() if len({pair.piece for pair in members}) < len(members)]
    partial = [name for name, members in joined.items() if max(pair.piece or 0 for pair in members) >= len(members)]
    problems = {
        "tensors without a name there": unknown,
        "names that two tensors have there": twice,
        "tensors there of which pieces are missing": [name for name in partial if name not in twice],
    }
    if any(problems.values()):
        raise CheckpointError("hub.py does not fit this model" + lines(problems))
    return [_placed(pair, joined) for pair in found]


def interleaved(contents: Iterable[Tensor], groups: int) -> Tensor:
    """Pieces of ours as theirs has them: in each group of its rows, some of every piece."""
    return torch.cat([content.reshape(groups, -1, *content.shape[1:]) for content in contents], 1).flatten(0, 1)


def _joined(found: Iterable[Pair]) -> dict[str, list[Pair]]:
    """Their tensors that are joined of several of ours, with ours in order."""
    joined = defaultdict[str, list[Pair]](list)
    for pair in found:
        if pair.piece is not None:
            joined[pair.theirs[0]].append(pair)
    return {name: sorted(members, key=lambda pair: pair.piece or 0) for name, members in joined.items()}


def _placed(pair: Pair, joined: Mapping[str, list[Pair]]) -> Pair:
    """A piece with the rows that it has in the whole of theirs."""
    if pair.piece is None:
        return pair
    lengths = [member.info.shape[0] for member in joined[pair.theirs[0]]]
    return replace(pair, start=sum(lengths[: pair.piece]), their_shape=(sum(lengths), *pair.info.shape[1:]))


def tied_names(tied: Mapping[str, str], rows: Iterable[tuple[str, str]]) -> dict[str, str]:
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
    theirs: str
    stars: int
    stacked: bool
    ending: re.Match[str] | None

    @classmethod
    def read(cls, ours: str, theirs: str) -> _Row:
        if ours.count("*") != theirs.count("*"):
            raise CheckpointError(f"hub.py: {ours} and {theirs} have different numbers of *")
        name, ending = ours.removesuffix("[*]"), _ENDING.search(theirs)
        words = (_NUMBER.get(word, re.escape(word)) for word in _WORD.split(name))
        there = theirs[: ending.start()] if ending else theirs
        return cls(re.compile("".join(words)), there.replace("*", "{}"), ours.count("*"), name != ours, ending)

    def fit(self, name: str, uses: Sequence[tuple[int, int]]) -> re.Match[str] | None:
        """How the row reads one of our names, if it is about it."""
        match = self.ours.fullmatch(name)
        layer = match.groupdict().get("use") if match else None
        return match if layer is None or int(layer) in dict(uses) else None

    def pair(self, info: Info, match: re.Match[str], uses: Sequence[tuple[int, int]]) -> Pair:
        """The tensor that `match` found."""
        words = {word: int(number) for word, number in match.groupdict().items()}
        if "use" in words:
            layers = [layer for layer, _ in uses]
            words |= {"nth": layers.index(words["use"]), "copy": dict(uses)[words["use"]]}
        numbers = [n for i, n in enumerate(match.groups(), 1) if i not in match.re.groupindex.values()]
        homes = [layer for layer, copy in uses if copy == words.get("copy")] or [0]
        there = [self.theirs.format(*numbers, *"*" * self.stacked, home=home, each=home, **words) for home in homes]
        name, *others = dict.fromkeys(there)
        piece, groups, ways, lead = self.ending.groups() if self.ending else (None, None, None, None)
        shape = info.shape[1:] if self.stacked else ((1, *info.shape) if lead else info.shape)
        return Pair(
            ours=match.string,
            info=info,
            theirs=tuple(name.replace("*", str(i)) for i in range(info.shape[0])) if self.stacked else (name,),
            their_shape=shape,
            stacked=self.stacked,
            piece=None if piece is None else int(piece),
            groups=int(groups or 1),
            ways=int(ways or 1),
            again=tuple(others) if "{each}" in self.theirs else (),
            perhaps=() if "{each}" in self.theirs else tuple(others),
        )
