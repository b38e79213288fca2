"""Any spec as a tiny model of the same structure: every size by the name of its field, every repeat capped.

Works on the syntax tree, so that what runs is a spec like any other: its kinds, parts, suffixes, `let`s and brackets
stay, and only numbers change. Ratios of heads stay, and so does the number of experts up to 8. Repeats keep their
remainder by the periods of the spec, so that `every 2` meets the same layers, and long lists keep two of equal items; a
cap that leaves a suffix nothing to say (`every 8` of four layers) is raised until the spec holds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, is_dataclass, replace
from fractions import Fraction
from math import lcm
from typing import Any

from archc.compiler import load
from archc.diagnostics import DiagnosticError, Source, Span
from archc.grammar import tree
from archc.grammar.format import format_spec
from archc.grammar.parse import parse
from archc.layers.kind import Kind, Part, fields_of

SIZES = {
    "vocab": 31,
    "context": 48,
    "d_ff": 12,
    "d_state": 4,
    "dt_rank": 3,
    "window": 5,
    "d_head": 4,
    "d_head_v": 4,
    "dims": 2,
    "n_groups": 2,
    "chunk": 4,
    "rank": 2,
    "div": 2,
}
CUTOFFS = (7, 13, 22)  # of a vocabulary of 31
MIN_D_MODEL = 16
MAX_KV_HEADS = 2
MAX_HEADS = 8
MAX_EXPERTS = 8
LONG_LIST = 8
CAPS = (2, 3, 4, 6, 8, 12, 16, 32, 64)


def shrink(text: str, name: str = "spec") -> str:
    """The text of the tiny spec."""
    spec = parse(Source(name, text))
    found: list[DiagnosticError] = []
    for cap in CAPS:
        tiny = Shrinker(spec, cap).text()
        try:
            load(Source(name, tiny))
        except DiagnosticError as failure:
            found.append(failure)
        else:
            return tiny
    raise AssertionError(f"{name} does not shrink: {[d.message for d in found[-1].diagnostics]}\n{tiny}")


class Shrinker:
    """One run over one spec with one cap on repeats."""

    def __init__(self, spec: tree.Spec, cap: int) -> None:
        self.spec = spec
        self.cap = cap
        self.macros: dict[str, str] = {}
        self.head_counts = [1]
        self.period = lcm(*periods(spec))

    def text(self) -> str:
        statements = [self.visit(statement) for statement in self.spec.statements]
        unit = 2 * lcm(*self.head_counts)  # a head width that is not given is d_model / n_heads, and rope wants it even
        d_model = unit * -(-MIN_D_MODEL // unit)
        statements = [
            replace(s, value=number(d_model)) if isinstance(s, tree.Setting) and s.ident.name == "d_model" else s
            for s in statements
        ]
        return format_spec(replace(self.spec, statements=tuple(statements), comments=()))

    def visit(self, node: Any) -> Any:
        """A copy of any node with the numbers that it names shrunk."""
        match node:
            case tree.Repeat():
                return replace(node, count=self.repeats(node.count))
            case tree.Arg(name=None | tree.Ident(name="cutoffs"), value=tree.ListExpr()) if _of_numbers(node.value):
                cuts = zip(node.value.items, CUTOFFS, strict=False)
                items = tuple(replace(item, start=number(cut)) for item, cut in cuts)
                return replace(node, value=replace(node.value, items=items))
            case tree.TopK():
                n = min(node.n, MAX_EXPERTS)
                return replace(node, k=min(node.k, n), n=n)
            case tree.Let() if not isinstance(node.item, tree.Group):
                self.macros[node.ident.name] = node.item.sublayers[0].branches[0].words[0].ident.name
        if not is_dataclass(node):
            return tuple(map(self.visit, node)) if isinstance(node, tuple) else node
        changes = {f.name: self.visit(getattr(node, f.name)) for f in fields(node) if f.name not in ("span", "source")}
        if isinstance(node, tree.Block | tree.Group):
            changes["items"] = self.fewer(changes["items"])
        if isinstance(node, tree.Word | tree.Setting | tree.Name | tree.Share) and node.args is not None:
            changes["args"] = self.arguments(node.ident.name, changes["args"])
        if isinstance(node, tree.Word | tree.Setting) and node.ident.name in SIZES and is_number(node.value):
            changes["value"] = smaller(node.value, SIZES[node.ident.name])
        return replace(node, **changes)

    def fewer(self, items: tuple[tree.Item, ...]) -> tuple[tree.Item, ...]:
        """A long list with so many of equal items."""
        if len(items) <= LONG_LIST:
            return items
        return tuple(item for i, item in enumerate(items) if items[:i].count(item) < self.cap)

    def repeats(self, count: int) -> int:
        """Fewer, in step with what repeats every so many layers: the most up to the cap, or else the fewest."""
        first = (count - 1) % self.period + 1
        return first + max(0, min(count, self.cap) - first) // self.period * self.period

    def arguments(self, owner: str, args: Iterable[tree.Arg]) -> tuple[tree.Arg, ...]:
        """The arguments of `owner(...)`, positional ones under the names of their fields."""
        head = self.macros.get(owner, owner)
        cls = Kind.known.get(head) or Part.known.get(head)
        names = iter(fields_of(cls) if cls else (head,))
        named: dict[str, tree.Arg] = {}
        for i, arg in enumerate(args):
            field = arg.name.name if arg.name else next(names, "") if is_number(arg.value) else f"#{i}"
            named[field] = arg
        if {"n_heads", "expand"} <= set(named):
            del named["expand"]  # they say the same
        sizes = {**SIZES, **self.heads(named)}
        return tuple(
            replace(arg, value=smaller(arg.value, sizes[field])) if field in sizes and is_number(arg.value) else arg
            for field, arg in named.items()
        )

    def heads(self, named: dict[str, tree.Arg]) -> dict[str, int]:
        """Fewer heads, their ratio kept."""
        counts = {field: int(arg.value.value) for field, arg in named.items() if isinstance(arg.value, tree.Number)}
        if "n_heads" not in counts:
            return {}
        shared = next((field for field in ("n_kv_heads", "n_k_heads") if field in counts), None)
        if shared is None:
            small = {"n_heads": min(counts["n_heads"], MAX_HEADS)}
        else:
            few = min(counts[shared], MAX_KV_HEADS)
            small = {"n_heads": counts["n_heads"] // counts[shared] * few, shared: few}
        self.head_counts.append(small["n_heads"])
        return small


def _of_numbers(value: tree.ListExpr) -> bool:
    return all(isinstance(item.start, tree.Number) for item in value.items)


def periods(node: Any) -> list[int]:
    """The N of every `every N`."""
    if isinstance(node, tree.Every) and isinstance(node.period, tree.Number):
        return [int(node.period.value)]
    if isinstance(node, tuple):
        return [period for item in node for period in periods(item)]
    if not is_dataclass(node):
        return []
    return [p for f in fields(node) if f.name not in ("span", "source") for p in periods(getattr(node, f.name))]


def is_number(value: Any) -> bool:
    """Whether a value is a constant expression, as far as the syntax tells."""
    if isinstance(value, tree.Name):
        return value.ident.name in ("sqrt", "ceil", "floor", "min", "max", "d_model", "vocab", "context")
    return isinstance(value, tree.Number | tree.Binary | tree.Negative)


def smaller(value: Any, size: int) -> tree.Number:
    """`size`, or a literal that is smaller already."""
    return number(min(int(value.value), size) if isinstance(value, tree.Number) else size)


def number(value: int) -> tree.Number:
    return tree.Number(span=Span(Source("shrunk", ""), 0, 0), value=Fraction(value), text=str(value), unit="")
