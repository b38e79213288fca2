"""The canonical text of a spec: `archc fmt`, and layers and values as the report shows them.

parse(format(tree)) == tree, and formatting twice changes nothing. Comments stay where they are, a
blank line stays one blank line, and one is put between the sections of a spec. Values of settings and
the `=` of neighbouring `let`s stand in a column.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import zip_longest

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
    return "\n".join(pretty.layout(Concat((_head(statement), _rest(statement, Words())))))


def format_layer(layer: tree.Layer | tree.Item) -> str:
    """A layer or a group on one line, as it stands in a block."""
    words = Words()
    return pretty.flat(words.layer(layer) if isinstance(layer, tree.Layer) else words.item(layer)) or ""


def format_expr(expression: tree.Expr) -> str:
    """A value on one line."""
    return pretty.flat(Words().expression(expression)) or ""


@dataclass(slots=True)
class _Entry:
    """A statement with the comment that ends it, or a comment on a line of its own."""

    statement: tree.Statement | None
    rest: Doc  # all but the name, or the comment
    ending: str | None = None
    blank: bool = False  # whether a blank line stands before it
    lines: list[str] = field(default_factory=list)


class _Statements:
    """The statements of a spec with what stands between them."""

    def __init__(self, spec: tree.Spec, words: Words, comments: Comments) -> None:
        self.source = spec.source
        self.statements = spec.statements
        self.words = words
        self.comments = comments
        self.entries: list[_Entry] = []
        self.section: type[tree.Statement] | None = None  # of the last statement among them

    def lines(self) -> Iterable[str]:
        for statement, following in zip_longest(self.statements, self.statements[1:]):
            self._statement(statement, following.span.start if following else None)
        self._own_lines(self.comments.before(len(self.source.text) + 1))
        for run in _runs(self.entries):
            column = max((_name_width(entry.statement) for entry in run), default=0)
            for entry in run:
                head = _head(entry.statement, column) if entry.statement else ""
                entry.lines = pretty.layout(Concat((head, entry.rest)))
        _align_comments(self.entries)
        for i, entry in enumerate(self.entries):
            if entry.blank and i:
                yield ""
            yield from entry.lines

    def _statement(self, statement: tree.Statement, following: int | None) -> None:
        before = self.comments.before(statement.span.start)
        value = statement.value if isinstance(statement, tree.Setting) else None
        inside = self.comments.before(value.span.start) if value else ()
        rest = _rest(statement, self.words)
        inside += (*self.comments.take_moved(), *self.comments.before(statement.span.end))
        ending = self.comments.behind(statement.span, following)
        first = len(self.entries)
        self._own_lines(before)
        blank = _blank_before(self.source, statement.span.start)
        for moved in inside:
            self.entries.append(_Entry(None, moved.text, None, blank))
            blank = False
        self.entries.append(_Entry(statement, rest, ending, blank))
        self._separate(type(statement), first)

    def _own_lines(self, comments: Iterable[tree.Comment]) -> None:
        for comment in comments:
            blank = comment.own_line and _blank_before(self.source, comment.span.start)
            self.entries.append(_Entry(None, comment.text, None, blank))

    def _separate(self, section: type[tree.Statement], first: int) -> None:
        """One blank line, at least, between the sections of a spec."""
        changes = self.section not in (None, section) or self.section is tree.Share
        if changes and not any(entry.blank for entry in self.entries[first:]):
            self.entries[first].blank = True
        self.section = section


def _runs(entries: Iterable[_Entry]) -> Iterable[list[_Entry]]:
    """Neighbouring statements of one kind, whose columns are aligned, and the comments among them."""
    run: list[_Entry] = []
    for entry in entries:
        if entry.blank:
            yield run
            run = []
        run.append(entry)
    yield run


def _name_width(statement: tree.Statement | None) -> int:
    aligned = isinstance(statement, tree.Let) or (isinstance(statement, tree.Setting) and statement.value is not None)
    return len(statement.ident.name) if aligned and isinstance(statement, tree.Let | tree.Setting) else 0


def _blank_before(source: Source, offset: int) -> bool:
    """Whether the line before the one that begins with `offset` is blank."""
    text = source.text
    end = text.rfind("\n", 0, offset)
    start = text.rfind("\n", 0, max(end, 0)) + 1
    return end >= 0 and not text[end:offset].strip() and not text[start:end].strip()


def _align_comments(entries: Iterable[_Entry]) -> None:
    """Put the comments at the ends of neighbouring lines into one column."""
    run: list[_Entry] = []
    for entry in entries:
        if entry.blank or entry.statement is None or len(entry.lines) > 1:
            _put_comments(run)
            run = []
        if entry.ending is not None:
            run.append(entry)
    _put_comments(run)


def _put_comments(run: list[_Entry]) -> None:
    column = max((len(entry.lines[-1]) for entry in run), default=0) + 2
    for entry in run:
        entry.lines[-1] = entry.lines[-1].ljust(column) + (entry.ending or "")


def _head(statement: tree.Statement, column: int = 0) -> str:
    """How a statement begins, its name filled up to `column` where values are aligned."""
    match statement:
        case tree.Model(ident=ident):
            return f"model {ident.name}"
        case tree.Let(ident=ident):
            return f"let {ident.name.ljust(column)} ="
        case tree.Share(ident=ident):
            return f"share {ident.name}"
        case tree.Block(repeat=repeat):
            return f"block{_count(repeat)} "
        case tree.Setting(ident=ident, value=None):
            return ident.name
        case tree.Setting(ident=ident):
            return ident.name.ljust(max(column, len(ident.name)) + 2)


def _rest(statement: tree.Statement, words: Words) -> Doc:
    match statement:
        case tree.Model():
            return ""
        case tree.Let(item=item):
            return words.body(item)
        case tree.Share(ident=ident, args=args, repeat=repeat, layer=layer):
            return Concat((words.arguments(args, ident.span), f"{_count(repeat)} =", words.body(layer)))
        case tree.Block(items=items, suffix=suffix):
            return Concat((words.group(items), words.suffix(suffix)))
        case tree.Setting(ident=ident, args=args, value=None):
            return words.arguments(args, ident.span)
        case tree.Setting(value=value, tags=tags):
            assert value is not None  # the case above
            return Concat((words.expression(value), words.tags(tags)))


def _count(repeat: tree.Repeat | None) -> str:
    return f" x{repeat.count}" if repeat else ""
