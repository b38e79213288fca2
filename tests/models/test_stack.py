"""Repeats, brackets and suffixes: the rolled stack against an interpreter that unrolls by the rules of the language.

The rules: `every N offset K` speaks of the layers of its bracket with index % N == K, counted through that bracket's
repeats and from 0 at each entry; own words win over the nearest bracket's suffix, that over outer ones; within one
bracket the later suffix wins; a suffix that changes no layer is an error.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archc import compiler
from archc.diagnostics import DiagnosticError, Source
from archc.ir.graph import Graph, Layer, Repeat, Stack, counts, unrolled
from archc.passes.flops import flops
from archc.passes.grouping import sublayers
from archc.passes.params import params
from archc.passes.state import state
from archc.passes.workload import Workload

HEAD = "vocab 17\nd_model 16\nmlp swiglu(12)\n"
LETS = "let wide = attn gqa(2,1) window(7)\nlet both = mamba + attn gqa(2,1)\nlet pair = < mamba, attn gqa(2,1) >\n"


def graph(text: str) -> Graph:
    return compiler.load(Source("spec", HEAD + text)).graph


def codes(text: str) -> set[str]:
    with pytest.raises(DiagnosticError) as caught:
        graph(text)
    return {finding.code for finding in caught.value.diagnostics}


def shown(layer: Layer) -> tuple[str, ...]:
    """`("attn window=3", "moe top1/2")`."""
    return tuple(show(scope.identity) for scope in sublayers(layer))


def show(kind: Any) -> str:
    said = {
        "attn": lambda: f" window={kind.window}",
        "mamba": lambda: f" d_state={kind.d_state}",
        "moe": lambda: f" top{kind.top_k}/{kind.n_experts}",
    }
    return kind.keyword + said.get(kind.keyword, lambda: f"({kind.d_ff})")()


# --- the interpreter --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Leaf:
    """A layer as written: its text, the kinds in it, and what it says itself."""

    text: str
    kinds: tuple[str, ...]
    window: int | None = None
    mlp: str | None = None


@dataclass(frozen=True)
class Suffix:
    """`window(5) every 2 offset 0`: a field and its value, or a channel mixer, and the layers that it speaks of."""

    text: str
    what: str
    value: str
    period: int = 1
    offset: int = 0
    at: frozenset[int] | None = None

    @property
    def written(self) -> str:
        if self.at is not None:
            return f"{self.text} at [{', '.join(map(str, sorted(self.at)))}]"
        if self.period == 1 and self.offset == 0:
            return self.text
        return f"{self.text} every {self.period} offset {self.offset}"

    def speaks_of(self, index: int) -> bool:
        return index in self.at if self.at is not None else index % self.period == self.offset


@dataclass(frozen=True)
class Bracket:
    """`< items > xN suffixes`, or the name of a group."""

    items: tuple[Any, ...]
    repeat: int
    suffixes: tuple[Suffix, ...] = ()
    name: str = ""

    @property
    def written(self) -> str:
        inside = self.name or f"< {', '.join(item.written for item in self.items)} >"
        return " ".join([inside, f"x{self.repeat}", *(suffix.written for suffix in self.suffixes)])


@dataclass(frozen=True)
class Written:
    """A leaf in a list: `layer xN`."""

    leaf: Leaf
    repeat: int

    @property
    def written(self) -> str:
        return f"{self.leaf.text} x{self.repeat}" if self.repeat > 1 else self.leaf.text


class Interpreter:
    """Runs through every layer with a counter for each bracket."""

    def __init__(self) -> None:
        self.layers: list[tuple[str, ...]] = []
        self.entered: list[tuple[Bracket, list[int]]] = []
        self.used: set[int] = set()

    def run(self, bracket: Bracket) -> None:
        counter = [0]
        self.entered.append((bracket, counter))
        for _ in range(bracket.repeat):
            for item in bracket.items:
                if isinstance(item, Bracket):
                    self.run(item)
                else:
                    for _ in range(item.repeat):
                        self.layer(item.leaf)
        self.entered.pop()

    def layer(self, leaf: Leaf) -> None:
        speaking = [s for bracket, counter in self.entered for s in bracket.suffixes if s.speaks_of(counter[0])]
        said: list[str] = []
        for kind in leaf.kinds:
            if kind == "attn":
                said.append(f"attn window={self.winner(speaking, 'window', leaf.window)}")
            else:
                said.append(f"mamba d_state={self.winner(speaking, 'd_state', None) or 16}")
        mixer = self.winner(speaking, "mlp", leaf.mlp) or "swiglu(12)"
        self.layers.append((*said, *([] if mixer == "none" else [mixer])))
        for _, counter in self.entered:
            counter[0] += 1

    def winner(self, speaking: list[Suffix], what: str, own: Any) -> Any:
        if own is not None:
            return own
        about = [suffix for suffix in speaking if suffix.what == what]
        if not about:
            return None
        self.used.add(id(about[-1]))
        return about[-1].value


# --- specs to compare -------------------------------------------------------------------------------

leaves = st.sampled_from(
    [
        Leaf("mamba", ("mamba",)),
        Leaf("attn gqa(2,1)", ("attn",)),
        Leaf("attn gqa(2,1) window(3)", ("attn",), window=3),
        Leaf("wide", ("attn",), window=7),
        Leaf("both", ("mamba", "attn")),
        Leaf("mamba + gelu(4)", ("mamba",), mlp="gelu(4)"),
    ]
)
words = st.sampled_from(
    [
        ("moe top1/2", "mlp", "moe top1/2"),
        ("mlp=gelu(8)", "mlp", "gelu(8)"),
        ("mlp none", "mlp", "none"),
        ("relu2(6)", "mlp", "relu2(6)"),
        ("window(5)", "window", "5"),
        ("window(9)", "window", "9"),
        ("d_state=4", "d_state", "4"),
    ]
)


@st.composite
def suffixes(draw: st.DrawFn) -> Suffix:
    text, what, value = draw(words)
    form = draw(st.sampled_from(["all", "every", "at"]))
    if form == "every":
        period = draw(st.integers(1, 4))
        return Suffix(text, what, value, period, draw(st.integers(0, period - 1)))
    if form == "at":
        return Suffix(text, what, value, at=frozenset(draw(st.sets(st.integers(0, 3), min_size=1, max_size=2))))
    return Suffix(text, what, value)


PAIR = (Written(Leaf("mamba", ("mamba",)), 1), Written(Leaf("attn gqa(2,1)", ("attn",)), 1))


@st.composite
def brackets(draw: st.DrawFn, depth: int = 2) -> Bracket:
    one = st.builds(Written, leaf=leaves, repeat=st.integers(1, 3))
    if depth:
        group = Bracket(PAIR, 1)
        named = st.builds(
            lambda repeat, words: Bracket((group,), repeat, tuple(words), "pair"),
            st.integers(1, 3),
            st.lists(suffixes(), max_size=1),
        )
        one = one | brackets(depth=depth - 1) | named
    return Bracket(
        tuple(draw(st.lists(one, min_size=1, max_size=3))),
        draw(st.integers(1, 3)),
        tuple(draw(st.lists(suffixes(), max_size=2))),
    )


def every_bracket(bracket: Bracket) -> list[Bracket]:
    return [bracket, *(b for item in bracket.items if isinstance(item, Bracket) for b in every_bracket(item))]


def every_suffix(bracket: Bracket) -> list[Suffix]:
    return [suffix for one in every_bracket(bracket) for suffix in one.suffixes]


def length(bracket: Bracket) -> int:
    """Layers of one entry of a bracket."""
    return bracket.repeat * sum(length(item) if isinstance(item, Bracket) else item.repeat for item in bracket.items)


def names_layers_outside(bracket: Bracket) -> bool:
    return any(suffix.at is not None and max(suffix.at) >= length(bracket) for suffix in bracket.suffixes)


@settings(max_examples=120, deadline=None)
@given(blocks=st.lists(brackets(), min_size=1, max_size=2))
def test_rolled_equals_unrolled(blocks: list[Bracket]) -> None:
    interpreter = Interpreter()
    for block in blocks:
        interpreter.run(block)
    text = LETS + "".join(
        f"block x{b.repeat} < {', '.join(i.written for i in b.items)} > {' '.join(s.written for s in b.suffixes)}\n"
        for b in blocks
    )
    said = [suffix for block in blocks for suffix in every_suffix(block)]
    if any(map(names_layers_outside, (bracket for block in blocks for bracket in every_bracket(block)))):
        assert "wrong-range" in codes(text)
        return
    if any(id(suffix) not in interpreter.used for suffix in said):
        assert "suffix-without-effect" in codes(text)
        return
    rolled = graph(text)
    assert [shown(layer) for layer in unrolled(rolled.stack)] == interpreter.layers
    tally = Counter()
    for layer, times in counts(rolled.stack).items():
        tally[shown(layer)] += times
    assert tally == Counter(interpreter.layers)


# --- by hand ------------------------------------------------------------------------------------------


def kinds(text: str) -> list[str]:
    """The layers of a short spec, mixer and channel mixer without their fields."""
    return ["+".join(part.split()[0].split("(")[0] for part in shown(layer)) for layer in unrolled(graph(text).stack)]


def depth(stack: tuple[Stack, ...]) -> int:
    """How many elements are written down."""
    return sum(1 + depth(element.body) if isinstance(element, Repeat) else 1 for element in stack)


def test_a_thousand_million_layers_stay_rolled() -> None:
    rolled = graph("block x1000000000 < mamba > moe every 2 top2/16")
    assert depth(rolled.stack) <= 3
    assert sum(counts(rolled.stack).values()) == 10**9
    small = graph("block x2 < mamba > moe every 2 top2/16")
    workload = Workload(context=10)
    layers = params(rolled, workload).total - params(graph("block < mamba >"), workload).total
    one, two = (params(g, workload).total for g in (graph("block < mamba >"), small))
    pair = two - params(graph("block < mamba >"), workload).embedding - params(small, workload).head - 16
    assert params(rolled, workload).total - two == (5 * 10**8 - 1) * pair
    assert layers > 0
    assert one < two
    assert state(rolled, workload).total.ssm.elements == 5 * 10**8 * state(small, workload).total.ssm.elements
    big, little = flops(rolled, workload).total.forward, flops(small, workload).total.forward
    head = flops(small, workload).groups[-1].forward
    assert big - head == 5 * 10**8 * (little - head)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("block x3 < mamba, attn gqa(2,1) > moe every 3 top1/2", "m a M a m A"),  # 3 and 2 have no common factor
        ("block x2 < mamba x3 > moe every 2 top1/2", "m M m M m M"),  # the count runs through the repeats
        ("block x2 < < mamba x3 > moe every 2 top1/2 >", "m M m m M m"),  # and starts again at each entry
        ("block < mamba x3 > moe every 2 top1/2\nblock < mamba x3 > moe every 2 top1/2", "m M m m M m"),
        ("block < < mamba x3 > x2 moe every 2 top1/2 >", "m M m M m M"),
        ("block < mamba x4 > moe every 2 offset 0 top1/2", "M m M m"),
        ("block < mamba x5 > moe at [0, 2..3] top1/2", "M m M M m"),
        ("block x2 < mamba x2 > moe at [3] top1/2", "m m m M"),
        ("block < < mamba x2 > mlp=gelu(4), mamba > moe top1/2", "g g M"),  # the nearest bracket wins
        ("block < mamba x2 > moe top1/2 mlp=gelu(4) at [1]", "M g"),  # and within one the later
        ("block < mamba + gelu(4), mamba > moe top1/2", "g M"),  # a layer's own words win
        ("block < mamba x2 > mlp none at [0]", "- m"),
        ("let g = < mamba x2, attn gqa(2,1) >\nblock < g x2, mamba > moe every 4 top1/2", "m m a M m a m"),
    ],
)
def test_every_and_at(text: str, expected: str) -> None:
    letters = {
        "mamba+swiglu": "m",
        "mamba+moe": "M",
        "attn+swiglu": "a",
        "attn+moe": "A",
        "mamba+gelu": "g",
        "mamba": "-",
    }
    assert " ".join(letters[kind] for kind in kinds(text)) == expected


@pytest.mark.parametrize(
    ("text", "window"),
    [
        ("block < attn gqa(2,1) >", None),
        ("let a = attn gqa(2,1) window(2)\nblock < a >", 2),
        ("let a = attn gqa(2,1) window(2)\nblock < a window(3) >", 3),
        ("let a = attn gqa(2,1) window(2)\nlet b = a window(4)\nblock < b >", 4),
        ("let a = attn(gqa(2,1), window(2))\nblock < a, attn gqa(2,1) > window(9)", 2),
        ("block < < attn gqa(2,1) > window(5) > ", 5),
        ("block < < attn gqa(2,1) > window(5), attn gqa(2,1) > window(9)", 5),
        ("block < attn gqa(2,1) x2 > window(5) window(9) at [1]", 5),
        ("block < attn gqa(2,1) x2 > window(5) window(9) at [0]", 9),
    ],
)
def test_priority(text: str, window: int | None) -> None:
    assert shown(next(unrolled(graph(text).stack)))[0] == f"attn window={window}"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("block x4 < mamba > moe every 8 top1/2", "suffix-without-effect"),
        ("block < mamba > window(5)", "suffix-without-effect"),
        ("block < attn gqa(2,1) window(3) > window(5)", "suffix-without-effect"),
        ("block < < mamba > moe top1/2 > mlp=gelu(4)", "suffix-without-effect"),
        ("block < mamba > moe every 2 offset 2 top1/2", "offset-outside"),
        ("block < mamba > moe every 0 top1/2", "too-small"),
        ("block < mamba > moe every 3/2 top1/2", "not-an-integer"),
        ("block < mamba x4 > moe at [3..1] top1/2", "wrong-range"),
        ("block < mamba x4 > moe at [0, 4] top1/2", "wrong-range"),
        ("let m = mamba\nlet m = mamba\nblock < m >", "let-twice"),
        ("let d_model = mamba\nblock < d_model >", "let-hides"),
        ("block < mambo >", "unknown-layer"),
        ("let both = mamba + mamba(d_state=4)\nblock < both d_state=8 >", "ambiguous-override"),
        ("", "missing-block"),
    ],
)
def test_errors(text: str, code: str) -> None:
    assert code in codes(text)


def test_periods_without_end_are_refused() -> None:
    """Periods whose common multiple is out of reach give a diagnostic, not a wait."""
    suffix = " ".join(f"window({i}) every {p} offset 0" for i, p in enumerate((97, 101, 103, 107), start=2))
    assert "period-too-long" in codes(f"block x1000000000 < attn gqa(2,1) > {suffix}")
