"""Layers, words and expressions of the syntax tree as documents for `pretty`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from archc.diagnostics import Span
from archc.grammar import pretty, tree
from archc.grammar.comments import Comments
from archc.grammar.pretty import Body, Concat, Doc, Element

_N = TypeVar("_N", bound=tree.Node)

_PRECEDENCE = {"+": 1, "-": 1, "*": 2, "/": 2}
_SUM, _PRODUCT, _UNARY = 1, 2, 3


class Words:
    """Makes documents, and hands comments to the elements that they stand at."""

    def __init__(self, comments: Comments | None = None) -> None:
        self.comments = comments

    # --- layers

    def body(self, item: tree.Layer | tree.Group) -> Doc:
        """What stands behind the `=` of a `let` or `share`."""
        before = self.comments.before(item.span.start) if self.comments else ()
        doc = self.item(item) if isinstance(item, tree.Group) else self.layer(item)
        before += self.comments.take_moved() if self.comments is not None else ()
        if not before and (isinstance(item, tree.Group) or _one_word(item)):
            return Concat((" ", doc))
        ends_line = bool(before) and not before[0].own_line
        leading = tuple(comment.text for comment in before[ends_line:])
        return Body(doc, before[0].text if ends_line else None, leading)

    def item(self, item: tree.Item) -> Doc:
        count = f" x{item.repeat.count}" if item.repeat else ""
        inner = self.layer(item.layer) if isinstance(item, tree.Single) else self.group(item.items)
        return Concat((inner, count, self.suffix(item.suffix)))

    def group(self, items: Sequence[tree.Item]) -> Doc:
        elements, dangling = self._elements(items, self.item, items[-1].span.end)
        return pretty.Sequence("bracketed", elements, ", ", "<", ">", " ", dangling)

    def layer(self, layer: tree.Layer) -> Doc:
        elements, _ = self._elements(layer.sublayers, self.sublayer, None)
        return elements[0].doc if _plain(elements) else pretty.Sequence("chain", elements, " + ")

    def sublayer(self, sublayer: tree.Sublayer) -> Doc:
        parts: list[Doc] = []
        for branch in sublayer.branches:
            parts += [" || "] * bool(parts) + [self._side_by_side(branch.words)]
        if sublayer.feed:
            parts += [f" <- {sublayer.feed.ident.name}", self.arguments(sublayer.feed.args, sublayer.feed.ident.span)]
        return Concat(tuple(parts))

    def suffix(self, words: Sequence[tree.Word]) -> Doc:
        return Concat((" ", self._side_by_side(words))) if words else ""

    def _side_by_side(self, words: Sequence[tree.Word]) -> Doc:
        elements, _ = self._elements(words, self.word, None)
        return elements[0].doc if _plain(elements) else pretty.Sequence("words", elements, " ")

    # --- words

    def word(self, word: tree.Word) -> Doc:
        parts: list[Doc] = [word.ident.name, self.arguments(word.args, word.ident.span)]
        if word.value is not None:
            parts += ["=" if word.assigned else " ", self.expression(word.value, _PRODUCT)]
        return Concat((*parts, self.tags(word.tags)))

    def tags(self, tags: Iterable[tree.Tag]) -> Doc:
        return Concat(tuple(Concat((" ", self._tag(tag))) for tag in tags))

    def _tag(self, tag: tree.Tag) -> Doc:
        match tag:
            case tree.TopK(k=k, n=n):
                return f"top{k}/{n}"
            case tree.At(layers=layers):
                return Concat(("at ", self.expression(layers)))
            case tree.Every(period=period, offset=None):
                return Concat(("every ", self.expression(period, _PRODUCT)))
            case tree.Every(period=period, offset=offset) if offset is not None:
                between = self.expression(period, _PRODUCT)
                return Concat(("every ", between, " offset ", self.expression(offset, _PRODUCT)))
        raise AssertionError(tag)

    # --- arguments and expressions

    def arguments(self, args: tuple[tree.Arg, ...] | None, owner: Span) -> Doc:
        """`(...)` behind the name at `owner`, or nothing."""
        if args is None:
            return ""
        elements, dangling = self._elements(args, self._argument, args[-1].span.end if args else owner.end + 1)
        numbers = all(arg.name is None and isinstance(arg.value, tree.Number) for arg in args)
        return pretty.Sequence("bracketed", elements, "," if numbers else ", ", "(", ")", "", dangling)

    def _argument(self, arg: tree.Arg) -> Doc:
        value = self._tag(arg.value) if isinstance(arg.value, tree.TopK) else self.expression(arg.value)
        return Concat((f"{arg.name.name}=", value)) if arg.name else value

    def expression(self, node: tree.Expr, least: int = _SUM) -> Doc:
        """`node` where what binds less than `least` needs parentheses."""
        match node:
            case tree.Number(text=text):
                return text
            case tree.NoneLiteral():
                return "none"
            case tree.Name(ident=ident, args=args):
                return Concat((ident.name, self.arguments(args, ident.span)))
            case tree.ListExpr(items=items):
                elements, dangling = self._elements(items, self._range, items[-1].span.end)
                return pretty.Sequence("bracketed", elements, ", ", "[", "]", "", dangling)
            case tree.Negative(operand=operand):
                return _bracketed(Concat(("-", self.expression(operand, _UNARY))), least > _UNARY)
            case tree.Binary(op=op, left=left, right=right):
                binds = _PRECEDENCE[op]
                sign = f" {op} " if binds == _SUM else op
                whole = Concat((self.expression(left, binds), sign, self.expression(right, binds + 1)))
                return _bracketed(whole, least > binds)
        raise AssertionError(node)

    def _range(self, item: tree.Range) -> Doc:
        start = self.expression(item.start)
        return start if item.stop is None else Concat((start, "..", self.expression(item.stop)))

    # --- comments

    def _elements(
        self, nodes: Sequence[_N], make: Callable[[_N], Doc], last_end: int | None
    ) -> tuple[tuple[Element, ...], tuple[str, ...]]:
        """The nodes as elements with their comments, and the comments left before the closing bracket.

        `last_end` is where the last node ends in a bracketed sequence, None without brackets. Comments
        inside the first node of a sequence without brackets go to the element that the sequence begins.
        """
        comments = self.comments
        if not comments:
            return tuple(Element(make(node)) for node in nodes), ()
        end = None if last_end is None else comments.closer(last_end)
        limits = [*(node.span.start for node in nodes[1:]), end]
        elements: list[Element] = []
        for node, limit in zip(nodes, limits, strict=False):
            before = comments.before(node.span.start)
            doc = make(node)
            inside = (*comments.take_moved(), *comments.before(node.span.end))
            if end is None and not elements:
                comments.moved += inside
            else:
                before += inside
            behind = comments.behind(node.span, limit) if limit is not None else None
            elements.append(Element(doc, tuple(comment.text for comment in before), behind))
        dangling = tuple(comment.text for comment in comments.before(end)) if end is not None else ()
        return tuple(elements), dangling


def _one_word(layer: tree.Layer) -> bool:
    """Whether there is nothing to break in the layer but the brackets of its only word."""
    only = layer.sublayers[0]
    return len(layer.sublayers) == len(only.branches) == len(only.branches[0].words) == 1 and only.feed is None


def _plain(elements: tuple[Element, ...]) -> bool:
    return len(elements) == 1 and not elements[0].leading and not elements[0].trailing


def _bracketed(doc: Doc, needed: bool) -> Doc:
    return Concat(("(", doc, ")")) if needed else doc
