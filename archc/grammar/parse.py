"""Text to syntax tree. All syntax errors of a source are found in one run."""

from __future__ import annotations

from typing import Any, cast

from lark import Token, UnexpectedToken

from archc.diagnostics import Diagnostic, DiagnosticError, Source, Span, error
from archc.grammar.depth import too_deep
from archc.grammar.layout import CLOSERS, OPENERS, Layout, split
from archc.grammar.lexemes import Lexeme
from archc.grammar.mistakes import explain
from archc.grammar.place import Place
from archc.grammar.scan import Scan, scan
from archc.grammar.sources import MAX_FINDINGS, check_text
from archc.grammar.tables import tables
from archc.grammar.tree import Expr, Spec, Statement


def parse(source: Source) -> Spec:
    """The syntax tree of a whole spec; raises DiagnosticError with every syntax error found."""
    check_text(source)
    found = scan(source)
    layout = _split(found)
    findings = found.findings + layout.findings
    earlier = tuple(findings)
    statements: list[Statement] = []
    previous: list[Lexeme] = []
    for lexemes in layout.statements:
        if len(findings) >= MAX_FINDINGS:
            break
        statements.append(cast(Statement, _Run("statement", lexemes, previous, findings, earlier).run()))
        previous = lexemes
    _raise_if(findings)
    span = Span(source, 0, len(source.text))
    return Spec(span=span, source=source, statements=tuple(statements), comments=tuple(found.comments))


def parse_expr(source: Source, start: int = 0) -> Expr:
    """The expression in `source` from offset `start` on, such as the value of `--set path=value`."""
    check_text(source)
    found = scan(source, start)
    layout = _split(found)
    findings = found.findings + layout.findings
    lexemes = [lexeme for statement in layout.statements for lexeme in statement]
    if not lexemes and not findings:
        end = Span(source, start, len(source.text))
        findings.append(error("expected-value", "a value is missing", end, help="write a value, as `4096` or `none`"))
    expression = _Run("expression", lexemes, [], findings, tuple(findings)).run() if lexemes else None
    _raise_if(findings)
    return cast(Expr, expression)


def _split(found: Scan) -> Layout:
    if len(found.findings) >= MAX_FINDINGS:  # the scan has stopped, so that brackets will not match
        _raise_if(found.findings)
    layout = split(found.lexemes)
    if len(layout.findings) >= MAX_FINDINGS:
        _raise_if(found.findings + layout.findings)
    return layout


def _raise_if(findings: list[Diagnostic]) -> None:
    """Abandon the source if anything was found, in the order of the text."""
    if findings:
        shown = sorted(dict.fromkeys(findings), key=lambda finding: finding.labels[0].span.start)[:MAX_FINDINGS]
        raise DiagnosticError(*(finding for finding in shown if not any(_inside(finding, other) for other in shown)))


def _inside(finding: Diagnostic, other: Diagnostic) -> bool:
    """Whether `finding` is about a part of what `other` is about."""
    a, b = finding.labels[0].span, other.labels[0].span
    return (a.start, a.end) != (b.start, b.end) and b.start <= a.start and a.end <= b.end and a.start < a.end


class _Run:
    """One statement (or expression) through lark's parser, which goes on behind every error."""

    def __init__(
        self,
        start: str,
        lexemes: list[Lexeme],
        previous: list[Lexeme],
        findings: list[Diagnostic],
        earlier: tuple[Diagnostic, ...],
    ) -> None:
        self.start = start
        self.lexemes = lexemes
        self.previous = previous
        self.findings = findings
        self.earlier = earlier  # those of the lexer and the layout
        self.machine = tables().parse_interactive(start=start)
        self.marks: list[int] = []  # height of the parser's stack behind each open bracket
        self.at = 0
        self.resumed = -1  # the lexeme at which the last recovery went on

    def run(self) -> Any:
        """The node; or None if there were errors, which are then among the findings."""
        errors = 0
        while self.at < len(self.lexemes) and len(self.findings) < MAX_FINDINGS:
            try:
                self._feed(self.lexemes[self.at])
                self.at += 1
            except UnexpectedToken as unexpected:
                errors += 1
                self._report(unexpected)
                if not self._recover():
                    return None
        return None if errors else self._end()

    def _end(self) -> Any:
        last = self.lexemes[-1]
        try:
            node = self.machine.feed_token(cast(Token, Lexeme("$END", "", last.source, last.end, last.end)))
        except UnexpectedToken as unexpected:
            self._report(unexpected)
            return None
        deep = too_deep(node, self.lexemes)
        if deep:
            self.findings.append(deep)
        return node

    def _feed(self, lexeme: Lexeme) -> None:
        self.machine.feed_token(cast(Token, lexeme))  # lark reads nothing of a token but its type
        if lexeme.type in OPENERS:
            self.marks.append(len(self.machine.parser_state.state_stack))
        elif lexeme.type in CLOSERS:
            self.marks.pop()

    def _report(self, unexpected: UnexpectedToken) -> None:
        place = Place(self.start, self.lexemes, self.at, self.previous, frozenset(unexpected.expected))
        if not self._follows_from_another(place):
            self.findings.append(explain(place))

    def _follows_from_another(self, place: Place) -> bool:
        """Whether the lexer or the layout found something here: what the parser says then is only its echo."""
        start, end = (place.before or place.at).start, place.at.end
        spans = (finding.labels[0].span for finding in self.earlier)
        return any(span.start <= end and start <= span.end for span in spans)

    def _recover(self) -> bool:
        """Go on at the next `,` or at the end of the bracket at hand; false if there is none."""
        if not self.marks:
            return self._restart()
        self.at = self.resumed = self._separator()
        state = self.machine.parser_state
        del state.state_stack[self.marks[-1] :]
        del state.value_stack[self.marks[-1] - 1 :]
        here = self.lexemes[self.at]
        self.machine.feed_token(cast(Token, Lexeme("NAME", "_", here.source, here.start, here.start)))
        return True

    def _separator(self) -> int:
        """The index of the next `,` of the bracket at hand, or of what closes it: layout has seen to one."""
        depth = 0
        for i in range(self.at + (self.at == self.resumed), len(self.lexemes)):  # `(1, 2)` is nothing a `,` mends
            kind = self.lexemes[i].type
            if depth == 0 and (kind == "COMMA" or kind in CLOSERS):
                return i
            depth += (kind in OPENERS) - (kind in CLOSERS)
        raise AssertionError("a statement whose brackets do not close reached the parser")

    def _restart(self) -> bool:
        """Outside brackets: look for errors in what is left of a `block`'s list or behind a `=`."""
        head = self.lexemes[0].type
        if self.start != "statement" or head not in ("BLOCK", "LET", "SHARE"):
            return False
        sign, lead = ("LESS", ["BLOCK"]) if head == "BLOCK" else ("EQUAL", ["LET", "NAME"])
        depth = 0
        for i in range(self.at, len(self.lexemes)):
            kind = self.lexemes[i].type
            if kind == sign and depth == 0 and not self._passed(sign):
                return self._restart_at(i, lead)
            depth += (kind in OPENERS) - (kind in CLOSERS)
        return False

    def _passed(self, sign: str) -> bool:
        return any(lexeme.type == sign for lexeme in self.lexemes[: self.at])

    def _restart_at(self, at: int, lead: list[str]) -> bool:
        self.machine = tables().parse_interactive(start=self.start)
        here = self.lexemes[at]
        for kind in lead:
            self.machine.feed_token(cast(Token, Lexeme(kind, "_", here.source, here.start, here.start)))
        self.at = at
        return True
