"""The canonical text of a spec: `archc fmt`, and layers and values as the report shows them.

parse(format(tree)) == tree, and formatting twice changes nothing. Comments stay where they are, a
blank line stays one blank line, and one is put between the sections of a spec. Values of settings and
the `=` of neighbouring `let`s stand in a column.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from archc.diagnostics import Source
from archc.grammar import pretty, tree
from archc.grammar.comments import Comments
from archc.grammar.pretty import Concat, Doc
from archc.grammar.words import Words


def format_spec(spec: tree.Spec) -> str:
    """The whole spec, ending in a line end; the empty text for a spec of nothing."""
    comments = Comments(spec.comments, spec.source)
    printer = _Statements(spec, Words(comments), comments)
    return "".join(line + "\n" for line in printer.lines())


def format_statement(statement: tree.Statement) -> str:
    """One statement, without its comments."""
    return "\n".join(pretty.layout(_statement(statement, Words(), 0)))


def format_layer(layer: tree.Layer | tree.Item) -> str:
    """A layer or a group on one line, as it stands in a block."""
    words = Words()
    return pretty.flat(words.layer(layer) if isinstance(layer, tree.Layer) else words.item(layer)) or ""


def format_expr(expression: tree.Expr) -> str:
    """A value on one line."""
    return pretty.flat(Words().expression(expression)) or ""


@dataclass(slots=True)
class _Line:
    """One statement or own-line comment of the result."""

    lines: list[str]
    section: str
    comment: str | None = None  # the one that ends the last line
    blank: bool = False  # whether a blank line stands before it


class _Statements:
    """The statements of a spec with what stands between them."""

    def __init__(self, spec: tree.Spec, words: Words, comments: Comments) -> None:
        self.source = spec.source
        self.statements = spec.statements
        self.words = words
        self.comments = comments
        self.done: list[_Line] = []
        self.section = ""  # of the last statement that is done

    def lines(self) -> Iterable[str]:
        columns = _columns(self.statements, self.source)
        for i, statement in enumerate(self.statements):
            following = self.statements[i + 1].span.start if i + 1 < len(self.statements) else None
            self._statement(statement, columns[i], following)
        self._own_lines(self.comments.before(len(self.source.text) + 1))
        _align_comments(self.done)
        for i, line in enumerate(self.done):
            if line.blank and i:
                yield ""
            yield from line.lines

    def _statement(self, statement: tree.Statement, column: int, following: int | None) -> None:
        before = self.comments.before(statement.span.start)
        value = statement.value if isinstance(statement, tree.Setting) else None
        inside = self.comments.before(value.span.start) if value else ()
        lines = pretty.layout(_statement(statement, self.words, column))
        inside += (*self.comments.take_moved(), *self.comments.before(statement.span.end))
        comment = self.comments.behind(statement.span, following)
        first = len(self.done)
        self._own_lines(before)
        blank = _blank_before(self.source, statement.span.start)
        for moved in inside:
            self.done.append(_Line([moved.text], "", None, blank))
            blank = False
        self.done.append(_Line(lines, type(statement).__name__, comment, blank))
        self._separate(first)

    def _own_lines(self, comments: Iterable[tree.Comment]) -> None:
        for comment in comments:
            blank = comment.own_line and _blank_before(self.source, comment.span.start)
            self.done.append(_Line([comment.text], "", None, blank))

    def _separate(self, first: int) -> None:
        """One blank line, at least, between the sections of a spec."""
        added = self.done[first:]
        previous, self.section = self.section, added[-1].section
        changes = previous != self.section or previous == "Share"
        if changes and first and not any(line.blank for line in added):
            added[0].blank = True


def _columns(statements: Sequence[tree.Statement], source: Source) -> list[int]:
    """For each statement, the width to which its name is filled up: that of its run's longest."""
    widths = [_name_width(statement) for statement in statements]
    columns = [0] * len(statements)
    start = 0
    for i in range(1, len(statements) + 1):
        if i == len(statements) or _run_ends(statements[i - 1], statements[i], source):
            longest = max(widths[start:i])
            columns[start:i] = [longest] * (i - start)
            start = i
    return columns


def _name_width(statement: tree.Statement) -> int:
    aligned = isinstance(statement, tree.Let) or (isinstance(statement, tree.Setting) and statement.value is not None)
    return len(statement.ident.name) if aligned and not isinstance(statement, tree.Block) else 0


def _run_ends(one: tree.Statement, other: tree.Statement, source: Source) -> bool:
    return type(one) is not type(other) or _blank_before(source, other.span.start)


def _blank_before(source: Source, offset: int) -> bool:
    """Whether the line before the one that begins with `offset` is blank."""
    text = source.text
    end = text.rfind("\n", 0, offset)
    start = text.rfind("\n", 0, max(end, 0)) + 1
    return end >= 0 and not text[end:offset].strip() and not text[start:end].strip()


def _align_comments(lines: list[_Line]) -> None:
    """Put the comments at the ends of neighbouring lines into one column."""
    run: list[_Line] = []
    for line in [*lines, _Line([], "", blank=True)]:
        if line.blank or not line.section or len(line.lines) > 1:
            _put_comments(run)
            run = []
        if line.comment is not None:
            run.append(line)
    _put_comments(run)


def _put_comments(run: list[_Line]) -> None:
    column = max((len(line.lines[-1]) for line in run), default=0) + 2
    for line in run:
        line.lines[-1] = line.lines[-1].ljust(column) + (line.comment or "")


def _statement(statement: tree.Statement, words: Words, column: int) -> Doc:
    match statement:
        case tree.Model(ident=ident):
            return f"model {ident.name}"
        case tree.Let(ident=ident, item=item):
            return Concat((f"let {ident.name.ljust(column)} =", words.body(item)))
        case tree.Share(ident=ident, args=args, repeat=repeat, layer=layer):
            head = (f"share {ident.name}", words.arguments(args, ident.span), f"{_count(repeat)} =")
            return Concat((*head, words.body(layer)))
        case tree.Block(repeat=repeat, items=items, suffix=suffix):
            return Concat((f"block{_count(repeat)} ", words.group(items), words.suffix(suffix)))
        case tree.Setting(ident=ident, args=args, value=None):
            return Concat((ident.name, words.arguments(args, ident.span)))
        case tree.Setting(ident=ident, value=value, tags=tags) if value is not None:
            return Concat((ident.name.ljust(column + 2), words.expression(value), words.tags(tags)))
    raise AssertionError(statement)


def _count(repeat: tree.Repeat | None) -> str:
    return f" x{repeat.count}" if repeat else ""
