"""From parse to syntax tree: what each rule of `arch.lark` makes of its parts.

lark calls these methods while it parses, bottom up and without recursion, so that depth of nesting
costs no stack. Every part of a rule arrives, signs included: a node's span runs from its first part
to its last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lark import Transformer

from archc.diagnostics import Span
from archc.grammar import tree
from archc.grammar.lexemes import Lexeme
from archc.grammar.numbers import number_of

Part = Any  # a Lexeme, a node, or a tuple of arguments: which one, the rule's place in the grammar says


class Builder(Transformer[Lexeme, Any]):
    """The methods are named after the rules and aliases of the grammar."""

    # --- statements

    def model(self, parts: list[Part]) -> tree.Model:
        return tree.Model(span=_span(parts), ident=_ident(parts[1]))

    def let(self, parts: list[Part]) -> tree.Let:
        return tree.Let(span=_span(parts), ident=_ident(parts[1]), item=parts[3])

    def share(self, parts: list[Part]) -> tree.Share:
        return tree.Share(
            span=_span(parts),
            ident=_ident(parts[1]),
            args=_arguments(parts),
            repeat=_repeat(parts),
            layer=parts[-1],
        )

    def block(self, parts: list[Part]) -> tree.Block:
        (items,) = (part for part in parts if isinstance(part, tuple))
        return tree.Block(span=_span(parts), repeat=_repeat(parts), items=items, suffix=_all(parts, tree.Word))

    def setting(self, parts: list[Part]) -> tree.Setting:
        return tree.Setting(span=_span(parts), ident=_ident(parts[0]), args=_arguments(parts))

    def setting_none(self, parts: list[Part]) -> tree.Setting:
        return tree.Setting(span=_span(parts), ident=_ident(parts[0]), value=_none(parts[1]))

    def setting_value(self, parts: list[Part]) -> tree.Setting:
        return tree.Setting(span=_span(parts), ident=_ident(parts[0]), value=parts[1], tags=tuple(parts[2:]))

    # --- layers

    def items(self, parts: list[Part]) -> tuple[tree.Item, ...]:
        return tuple(parts[::2])

    def single(self, parts: list[Part]) -> tree.Single:
        return tree.Single(span=_span(parts), layer=parts[0], repeat=_repeat(parts), suffix=_all(parts, tree.Word))

    def group(self, parts: list[Part]) -> tree.Group:
        return tree.Group(span=_span(parts), items=parts[1], repeat=_repeat(parts), suffix=_all(parts, tree.Word))

    def layer(self, parts: list[Part]) -> tree.Layer:
        return tree.Layer(span=_span(parts), sublayers=tuple(parts[::2]))

    def sublayer(self, parts: list[Part]) -> tree.Sublayer:
        return tree.Sublayer(span=_span(parts), branches=tuple(parts[::2]))

    def sublayer_fed(self, parts: list[Part]) -> tree.Sublayer:
        start = next(i for i, part in enumerate(parts) if _is(part, "FEED"))
        args = _arguments(parts[start:])
        feed = tree.Feed(span=_span(parts[start:]), ident=_ident(parts[start + 1]), args=args)
        return tree.Sublayer(span=_span(parts), branches=_all(parts, tree.Branch), feed=feed)

    def branch(self, parts: list[Part]) -> tree.Branch:
        return tree.Branch(span=_span(parts), words=tuple(parts))

    # --- words

    def word_call(self, parts: list[Part]) -> tree.Word:
        return tree.Word(span=_span(parts), ident=_ident(parts[0]), args=_arguments(parts), tags=_all(parts, _TAG))

    def word_none(self, parts: list[Part]) -> tree.Word:
        return tree.Word(span=_span(parts), ident=_ident(parts[0]), value=_none(parts[1]), tags=tuple(parts[2:]))

    def word_value(self, parts: list[Part]) -> tree.Word:
        return tree.Word(
            span=_span(parts), ident=_ident(parts[0]), value=parts[2], assigned=True, tags=tuple(parts[3:])
        )

    def word_value_none(self, parts: list[Part]) -> tree.Word:
        return self.word_value([*parts[:2], _none(parts[2]), *parts[3:]])

    def top_k(self, parts: list[Part]) -> tree.TopK:
        return _top_k(parts[0])

    def every(self, parts: list[Part]) -> tree.Every:
        offset = parts[3] if len(parts) > 2 else None
        return tree.Every(span=_span(parts), period=parts[1], offset=offset)

    def at(self, parts: list[Part]) -> tree.At:
        return tree.At(span=_span(parts), layers=parts[1])

    # --- arguments

    def args(self, parts: list[Part]) -> _Arguments:
        return _Arguments(_span(parts), _all(parts, tree.Arg))

    def arg_named(self, parts: list[Part]) -> tree.Arg:
        return tree.Arg(span=_span(parts), name=_ident(parts[0]), value=parts[2])

    def arg_named_none(self, parts: list[Part]) -> tree.Arg:
        return tree.Arg(span=_span(parts), name=_ident(parts[0]), value=_none(parts[2]))

    def arg_none(self, parts: list[Part]) -> tree.Arg:
        return tree.Arg(span=_span(parts), name=_ident(parts[0]), value=_none(parts[1]))

    def arg_value(self, parts: list[Part]) -> tree.Arg:
        return tree.Arg(span=_span(parts), name=None, value=parts[0])

    def arg_top(self, parts: list[Part]) -> tree.Arg:
        return tree.Arg(span=_span(parts), name=None, value=_top_k(parts[0]))

    # --- expressions

    def only(self, parts: list[Part]) -> tree.Expr:
        expression: tree.Expr = parts[0]
        return expression

    def none(self, parts: list[Part]) -> tree.NoneLiteral:
        return _none(parts[0])

    def binary(self, parts: list[Part]) -> tree.Binary:
        return tree.Binary(span=_span(parts), op=parts[1].text, left=parts[0], right=parts[2])

    def negative(self, parts: list[Part]) -> tree.Negative:
        return tree.Negative(span=_span(parts), operand=parts[1])

    def parenthesised(self, parts: list[Part]) -> tree.Expr:
        """The expression inside, with a span that covers its parentheses."""
        expression: tree.Expr = replace(parts[1], span=_span(parts))
        return expression

    def number(self, parts: list[Part]) -> tree.Number:
        return number_of(parts[0])

    def name(self, parts: list[Part]) -> tree.Name:
        return tree.Name(span=_span(parts), ident=_ident(parts[0]), args=_arguments(parts))

    def listed(self, parts: list[Part]) -> tree.ListExpr:
        return tree.ListExpr(span=_span(parts), items=_all(parts, tree.Range))

    def ranged(self, parts: list[Part]) -> tree.Range:
        return tree.Range(span=_span(parts), start=parts[0], stop=parts[2] if len(parts) > 1 else None)


class _Arguments:
    """`(...)`: the arguments, and the span with the parentheses, until their owner takes them."""

    __slots__ = ("args", "span")

    def __init__(self, span: Span, args: tuple[tree.Arg, ...]) -> None:
        self.span = span
        self.args = args


_TAG = (tree.TopK, tree.Every, tree.At)


def _span(parts: Sequence[Part]) -> Span:
    first: Span = parts[0].span
    return first if len(parts) == 1 else Span(first.source, first.start, parts[-1].span.end)


def _ident(lexeme: Lexeme) -> tree.Ident:
    return tree.Ident(span=lexeme.span, name=lexeme.text)


def _none(lexeme: Lexeme) -> tree.NoneLiteral:
    return tree.NoneLiteral(span=lexeme.span)


def _top_k(lexeme: Lexeme) -> tree.TopK:
    k, n = lexeme.text.removeprefix("top").split("/")
    return tree.TopK(span=lexeme.span, k=int(k), n=int(n))


def _is(part: Part, kind: str) -> bool:
    return isinstance(part, Lexeme) and part.type == kind


def _all(parts: Sequence[Part], kind: Any) -> tuple[Any, ...]:
    return tuple(part for part in parts if isinstance(part, kind))


def _arguments(parts: Sequence[Part]) -> tuple[tree.Arg, ...] | None:
    return next((part.args for part in parts if isinstance(part, _Arguments)), None)


def _repeat(parts: Sequence[Part]) -> tree.Repeat | None:
    found = next((part for part in parts if _is(part, "REPEAT")), None)
    return found and tree.Repeat(span=found.span, count=int(found.text.removeprefix("x")))
