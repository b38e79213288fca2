"""The syntax tree: what a spec says, with the span of every node, before any name means anything.

`parse` builds it, `format` prints it, `archc.elaborate` gives it meaning. Nodes compare by content:
spans are left out of equality, so that `parse(format(tree)) == tree` can be asked.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

from archc.diagnostics import Source, Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """What every node has: where it stands."""

    span: Span = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ident(Node):
    """A name where it is written."""

    name: str


# --- expressions -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Number(Node):
    """`text` as written, unit included; `value` exact, already scaled by `unit` (Ki, Mi, Gi, k, M, G or "")."""

    value: Fraction
    text: str
    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Name(Node):
    """A bare name (`d_model`, `rms`) or, with `args`, a call (`sqrt(2/160)`, `rms(eps=1e-6)`)."""

    ident: Ident
    args: tuple[Arg, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Binary(Node):
    """`left op right`. Parentheses leave no node: the shape of the tree says where they stood."""

    op: Literal["+", "-", "*", "/"]
    left: Expr
    right: Expr


@dataclass(frozen=True, slots=True, kw_only=True)
class Negative(Node):
    """`-operand`."""

    operand: Expr


@dataclass(frozen=True, slots=True, kw_only=True)
class Range(Node):
    """One element of a list: `start`, or `start..stop` (both ends included)."""

    start: Expr
    stop: Expr | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ListExpr(Node):
    """`[1, 4..7]`: at least one element."""

    items: tuple[Range, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NoneLiteral(Node):
    """The word `none`."""


Expr = Number | Name | Binary | Negative | ListExpr | NoneLiteral


# --- words: a name with its arguments and tags ------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class TopK(Node):
    """`top2/16`: two of sixteen experts."""

    k: int
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Every(Node):
    """`every N` or `every N offset K`."""

    period: Expr
    offset: Expr | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class At(Node):
    """`at [1, 4..7]`: explicit layer indices."""

    layers: ListExpr


Tag = TopK | Every | At


@dataclass(frozen=True, slots=True, kw_only=True)
class Arg(Node):
    """One argument: `name=value`, `name none`, a positional value such as `gqa(32,8)`, or `top2/16`."""

    name: Ident | None
    value: Expr | TopK


@dataclass(frozen=True, slots=True, kw_only=True)
class Word(Node):
    """`attn`, `gqa(32,8)`, `rope none`, `d_head=128`, `moe top2/16 every 2`.

    `args` is None without parentheses; `value` is set by `=` and by `none`.
    `assigned` tells `rope=none` from `rope none` (for the printer alone).
    """

    ident: Ident
    args: tuple[Arg, ...] | None = None
    value: Expr | None = None
    assigned: bool = False
    tags: tuple[Tag, ...] = ()


# --- layers ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch(Node):
    """Words side by side that describe one mixer: `attn gqa(32,8) window(2048)`."""

    words: tuple[Word, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed(Node):
    """`<- g` or `<- g(...)`: what is added to the input of the sublayer's norm."""

    ident: Ident
    args: tuple[Arg, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sublayer(Node):
    """One norm and one residual: a branch, or several in parallel (`a || b`)."""

    branches: tuple[Branch, ...]
    feed: Feed | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer(Node):
    """Sublayers in sequence: `a + b`. One list item is one layer."""

    sublayers: tuple[Sublayer, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeat(Node):
    """`x4`."""

    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Single(Node):
    """A layer in a list, `layer xN suffix...`; without `xN`, `repeat` is None and `suffix` empty."""

    layer: Layer
    repeat: Repeat | None = None
    suffix: tuple[Word, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Group(Node):
    """`< items > xN suffix...`. Suffix words may stand before or after `xN`; they mean the same."""

    items: tuple[Item, ...]
    repeat: Repeat | None = None
    suffix: tuple[Word, ...] = ()


Item = Single | Group


# --- statements ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Model(Node):
    """`model NAME`."""

    ident: Ident


@dataclass(frozen=True, slots=True, kw_only=True)
class Let(Node):
    """`let NAME = layer-or-group`."""

    ident: Ident
    item: Layer | Group


@dataclass(frozen=True, slots=True, kw_only=True)
class Share(Node):
    """`share NAME(args) xN = layer`."""

    ident: Ident
    args: tuple[Arg, ...] | None
    repeat: Repeat | None
    layer: Layer


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting(Node):
    """`vocab 65536`, `norm rms(eps=1e-6)`, `tied`, `embed(scale=12)`, `mlp none`.

    `args` for `NAME(...)`, `value` for `NAME expr` and `NAME none`; neither for a bare flag.
    """

    ident: Ident
    args: tuple[Arg, ...] | None = None
    value: Expr | None = None
    tags: tuple[Tag, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Block(Node):
    """`block xN < items > suffix...`."""

    repeat: Repeat | None
    items: tuple[Item, ...]
    suffix: tuple[Word, ...] = ()


Statement = Model | Let | Share | Setting | Block


@dataclass(frozen=True, slots=True, kw_only=True)
class Comment(Node):
    """`# ...` to the end of the line; `own_line` is false for one that follows code."""

    text: str
    own_line: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec(Node):
    """A whole source: statements in order, and its comments by position."""

    source: Source = field(compare=False, repr=False)
    statements: tuple[Statement, ...]
    comments: tuple[Comment, ...] = field(default=(), compare=False)
