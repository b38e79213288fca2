"""Suffixes: words behind a bracket, and which of its layers they speak of."""

from __future__ import annotations

from dataclasses import dataclass, field

from archc.diagnostics import Diagnostic, DiagnosticError, Label, Span, error
from archc.elaborate.bind import Environment
from archc.elaborate.constants import evaluate, shown
from archc.elaborate.values import MAX_SIZE
from archc.grammar.tree import At, Every, Expr, Word

MAX_LISTED = 20_000  # layers that one `at` names


@dataclass(eq=False)
class Suffix:
    """A suffix word in force: which layers of its bracket it speaks of, and what came of it."""

    word: Word
    period: int = 1
    offset: int = 0
    layers: frozenset[int] | None = None
    spoke: bool = False  # it spoke of some layer
    used: bool = False  # and that layer followed
    stronger: Label | None = None  # what some layer followed instead
    last: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.last = max(self.layers or {0})

    def applies(self, phase: int) -> bool:
        return phase in self.layers if self.layers is not None else phase == self.offset

    def next(self, phase: int) -> int:
        """The phase one layer later. Past the last listed layer nothing changes any more."""
        if self.layers is not None:
            return min(phase + 1, self.last + 1)
        return (phase + 1) % self.period

    def yields_to(self, span: Span, text: str) -> None:
        """Note what won over this suffix."""
        self.stronger = self.stronger or Label(span, text)


def suffix_of(word: Word, env: Environment, total: int) -> Suffix:
    """The suffix that a word is behind a bracket of `total` layers. Raises DiagnosticError."""
    tags = [tag for tag in word.tags if isinstance(tag, Every | At)]
    if len(tags) > 1:
        message = f"`{word.ident.name}` is told twice which layers it is for"
        earlier = Label(tags[0].span, "first said here")
        raise DiagnosticError(error("set-twice", message, tags[1].span, "again", earlier, help="keep one of the two"))
    if not tags:
        return Suffix(word)
    return _every(word, tags[0], env) if isinstance(tags[0], Every) else _at(word, tags[0], env, total)


def _every(word: Word, tag: Every, env: Environment) -> Suffix:
    period = _count(tag.period, 1, "a period", env)
    offset = period - 1 if tag.offset is None else _count(tag.offset, 0, "an offset", env)
    if offset >= period:
        assert tag.offset is not None
        message = f"an offset in a period of {period} is 0 to {period - 1}, and {offset} is outside"
        period_label = Label(tag.period.span, "the period")
        hint = f"layer {offset} of every {period} is layer {offset % period}: write offset {offset % period}"
        raise DiagnosticError(error("offset-outside", message, tag.offset.span, "", period_label, help=hint))
    return Suffix(word, period, offset)


def _at(word: Word, tag: At, env: Environment, total: int) -> Suffix:
    layers: set[int] = set()
    listed = 0
    for part in tag.layers.items:
        start = _count(part.start, 0, "a layer's index", env)
        stop = start if part.stop is None else _count(part.stop, 0, "a layer's index", env)
        if stop < start:
            message = f"{start}..{stop} holds no layer: a range counts upwards"
            raise DiagnosticError(error("wrong-range", message, part.span, help=f"write {stop}..{start}"))
        if stop >= total:
            message = f"there is no layer {stop}: this bracket has {total:,}, repeats included"
            hint = f"its layers are 0 to {total - 1}" if total > 1 else "its only layer is 0"
            raise DiagnosticError(error("wrong-range", message, part.span, help=hint))
        listed += stop + 1 - start
        if listed > MAX_LISTED:
            message = f"`at` lists more than {MAX_LISTED:,} layers"
            raise DiagnosticError(error("too-large", message, part.span, help="`every` or a group of its own says so"))
        layers.update(range(start, stop + 1))
    return Suffix(word, layers=frozenset(layers))


def _count(expr: Expr, least: int, what: str, env: Environment) -> int:
    value = evaluate(expr, env.lookup)
    if value.denominator != 1:
        message = f"{what} is a whole number, and {shown(value)} is not"
        raise DiagnosticError(error("not-an-integer", message, expr.span, help="`every` and `at` count layers"))
    if value < least:
        message = f"{what} is at least {least}, and {shown(value)} is less"
        raise DiagnosticError(error("too-small", message, expr.span, help=f"write {least} or more"))
    if value > MAX_SIZE:
        raise DiagnosticError(error("too-large", f"{what} is at most {MAX_SIZE:,}", expr.span, help="check the number"))
    return int(value)


def without_effect(suffix: Suffix, total: int) -> Diagnostic:
    """The finding that a suffix changed nothing, and why."""
    word = suffix.word
    name = word.ident.name
    tag = next((tag for tag in word.tags if isinstance(tag, Every | At)), None)
    labels = [suffix.stronger] if suffix.stronger else []
    if not suffix.spoke and tag is not None:
        message = f"`{name}` speaks of layer {suffix.offset:,} of {total:,}, and there is none"
        hint = f"the layers of this bracket are 0 to {total - 1:,}; `offset` says which one of each period is meant"
        return error("suffix-without-effect", message, tag.span, help=hint)
    message = f"`{name}` changes no layer of its bracket"
    if labels:
        return error("suffix-without-effect", message, word.span, "", *labels, help="keep one of the two")
    hint = f"no layer that it speaks of has a field `{name}`"
    return error("suffix-without-effect", message, word.span, help=hint)
