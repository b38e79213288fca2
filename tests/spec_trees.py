"""Strategies that draw any spec that the language can say, as a syntax tree without spans or comments."""

from __future__ import annotations

from typing import Any, TypeVar

from hypothesis import strategies as st

from archc.diagnostics import Source, Span
from archc.grammar import tree
from archc.grammar.lexemes import Lexeme
from archc.grammar.numbers import number_of

NOWHERE = Source("drawn", "")
SPAN = Span(NOWHERE, 0, 0)
RESERVED = {"model", "let", "share", "block", "every", "offset", "at", "none"}

_T = TypeVar("_T", bound=tree.Node)


def node(kind: type[_T], **fields: Any) -> st.SearchStrategy[_T]:
    return st.builds(kind, span=st.just(SPAN), **fields)


def some(one: st.SearchStrategy[Any], least: int = 0, most: int = 2) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(one, min_size=least, max_size=most).map(tuple)


def _is_repeat(name: str) -> bool:
    return name[0] == "x" and name[1:].isdigit()


names = st.one_of(
    st.sampled_from(
        ["mamba", "attn", "gqa", "d_state", "rope", "mlp", "x", "top", "top2", "X4", "_", "e1", "Ki", "lets"]
    ),
    st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,12}", fullmatch=True),
).filter(lambda name: name not in RESERVED and not _is_repeat(name))
idents = node(tree.Ident, name=names)
counts = st.integers(1, 10**12) | st.integers(1, 9)
repeats = st.none() | node(tree.Repeat, count=counts)


@st.composite
def numbers(draw: st.DrawFn) -> tree.Number:
    digits = str(draw(st.integers(0, 10**6)))
    if draw(st.booleans()):
        digits += "." + draw(st.from_regex("[0-9]{1,4}", fullmatch=True))
    if draw(st.booleans()):
        digits += (
            draw(st.sampled_from(["e", "E"])) + draw(st.sampled_from(["", "+", "-"])) + str(draw(st.integers(0, 30)))
        )
    text = digits + draw(st.sampled_from(["", "", "k", "M", "G", "Ki", "Mi", "Gi"]))
    return number_of(Lexeme("NUMBER", text, NOWHERE, 0, 0))


def expressions() -> st.SearchStrategy[tree.Expr]:
    return st.recursive(numbers() | names_alone, _grown, max_leaves=4)


def _grown(inner: st.SearchStrategy[tree.Expr]) -> st.SearchStrategy[tree.Expr]:
    return st.one_of(
        node(tree.Name, ident=idents, args=some(_args(inner))),
        node(tree.Binary, op=st.sampled_from("+-*/"), left=inner, right=inner),
        node(tree.Negative, operand=inner),
        node(tree.ListExpr, items=some(node(tree.Range, start=inner, stop=st.none() | inner), least=1)),
    )


def _args(value: st.SearchStrategy[tree.Expr]) -> st.SearchStrategy[tree.Arg]:
    named = node(tree.Arg, name=idents, value=value | node(tree.NoneLiteral))
    return named | node(tree.Arg, name=st.none(), value=value | tops)


names_alone = node(tree.Name, ident=idents, args=st.none())
tops = node(tree.TopK, k=counts, n=counts)
arguments = st.none() | st.none() | some(_args(expressions()))
lists = node(tree.ListExpr, items=some(node(tree.Range, start=expressions(), stop=st.none() | expressions()), least=1))
tags = st.just(()) | some(
    st.one_of(
        tops,
        node(tree.Every, period=expressions(), offset=st.none() | expressions()),
        node(tree.At, layers=lists),
    ),
    most=2,
)
words = st.one_of(
    node(tree.Word, ident=idents, args=arguments, tags=tags),
    node(tree.Word, ident=idents, value=node(tree.NoneLiteral), assigned=st.booleans(), tags=tags),
    node(tree.Word, ident=idents, value=expressions(), assigned=st.just(True), tags=tags),
)
branches = node(tree.Branch, words=some(words, least=1))
feeds = st.none() | node(tree.Feed, ident=idents, args=arguments)
sublayers = node(tree.Sublayer, branches=some(branches, least=1, most=2), feed=feeds)
layers = node(tree.Layer, sublayers=some(sublayers, least=1, most=2))
singles = node(tree.Single, layer=layers) | node(
    tree.Single, layer=layers, repeat=node(tree.Repeat, count=counts), suffix=some(words, most=2)
)
items = st.recursive(
    singles,
    lambda inner: node(tree.Group, items=some(inner, least=1), repeat=repeats, suffix=some(words, most=2)),
    max_leaves=3,
)
groups = node(tree.Group, items=some(items, least=1), repeat=repeats, suffix=some(words, most=2))


def _begins_bare(value: tree.Expr) -> bool:
    """Whether no parenthesis begins the text of `value`: behind a setting's name it would open its fields."""
    while isinstance(value, tree.Binary):
        inner = value.left
        if isinstance(inner, tree.Binary) and value.op in "*/" and inner.op in "+-":
            return False
        value = inner
    return True


settings = st.one_of(
    node(tree.Setting, ident=idents, args=arguments),
    node(tree.Setting, ident=idents, value=node(tree.NoneLiteral)),
    node(tree.Setting, ident=idents, value=expressions().filter(_begins_bare), tags=tags),
)
statements = st.one_of(
    settings,
    node(tree.Model, ident=idents),
    node(tree.Let, ident=idents, item=layers | groups),
    node(tree.Share, ident=idents, args=arguments, repeat=repeats, layer=layers),
    node(tree.Block, repeat=repeats, items=some(items, least=1), suffix=some(words, most=2)),
)
specs = st.builds(tree.Spec, span=st.just(SPAN), source=st.just(NOWHERE), statements=some(statements, most=3))
