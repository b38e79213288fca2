"""From lexemes to statements: where each one ends, and whether its brackets close.

A statement ends at `;` and at a line end, except inside brackets and before a line that is indented
deeper than the line on which the statement began. A bracket that does not close is reported here and
closed, and one that closes nothing is dropped, so that the parser sees balanced statements only.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from archc.diagnostics import Diagnostic, Label, error
from archc.grammar.lexemes import Lexeme
from archc.grammar.sources import MAX_FINDINGS

OPENERS = {"LESS": "MORE", "LPAR": "RPAR", "LSQB": "RSQB"}
CLOSERS = {closer: opener for opener, closer in OPENERS.items()}
SIGNS = {"LESS": "<", "MORE": ">", "LPAR": "(", "RPAR": ")", "LSQB": "[", "RSQB": "]"}

# These begin statements and can stand nowhere else: inside a bracket they prove that it never closed.
STATEMENT_WORDS = frozenset({"MODEL", "LET", "SHARE", "BLOCK"})

# What may stand before a line end inside a bracket. After anything else, an unindented line is where
# an unclosed statement most likely should have ended.
_CONTINUES = frozenset({*OPENERS, "COMMA", "PLUS", "MINUS", "STAR", "SLASH", "EQUAL", "PARALLEL", "FEED", "DOTS"})

MAX_NESTING = 64  # brackets; everything behind the parser may recurse over the tree
MAX_REWINDS = 16  # unclosed brackets in one source after which the rest of it is not looked at


@dataclass(slots=True)
class Layout:
    """The statements of a source, balanced, and the findings about their brackets."""

    statements: list[list[Lexeme]] = field(default_factory=list)
    findings: list[Diagnostic] = field(default_factory=list)


def split(lexemes: list[Lexeme]) -> Layout:
    """The statements of a source."""
    layout = Layout()
    at = 0
    for _ in range(MAX_REWINDS):
        splitter = _Splitter(layout, lexemes, at)
        resume = splitter.run()
        if resume is None:
            break
        at = resume
    return layout


class _Splitter:
    """One walk over the lexemes, to their end or to a bracket that proves unclosed."""

    def __init__(self, layout: Layout, lexemes: list[Lexeme], at: int) -> None:
        self.layout = layout
        self.lexemes = lexemes
        self.at = at
        self.current: list[Lexeme] = []
        self.began = at  # index of the statement's first lexeme
        self.line_indent = 0
        self.indent = 0
        self.open: list[Lexeme] = []
        self.found = len(layout.findings)  # findings from here on are of this walk

    def run(self) -> int | None:
        """Split until the end; or return where to go on after a statement with an unclosed bracket."""
        lexemes = self.lexemes
        while self.at < len(lexemes) and len(self.layout.findings) < MAX_FINDINGS:
            lexeme = lexemes[self.at]
            if self.open and 0 <= lexeme.indent <= self.indent and lexeme.type in STATEMENT_WORDS:
                return self._rewind(self.at)
            if lexeme.indent >= 0:
                self._line(lexeme)
            if lexeme.type == "SEMICOLON":
                self._semicolon(lexeme)
            elif not self._token(lexeme):
                return None
            self.at += 1
        if not self.open or len(self.layout.findings) >= MAX_FINDINGS:
            self._end()
            return None
        return self._rewind(None)

    def _line(self, lexeme: Lexeme) -> None:
        """A new line begins: does a statement end before it?"""
        if lexeme.indent <= self.indent and not self.open:
            self._end()
        self.line_indent = lexeme.indent

    def _semicolon(self, lexeme: Lexeme) -> None:
        if self.open:
            following = self.lexemes[self.at + 1 : self.at + 2]
            if following and following[0].type not in STATEMENT_WORDS:
                self.layout.findings.append(_semicolon_inside(lexeme, self.open[-1]))
                self.current.append(Lexeme("COMMA", ",", lexeme.source, lexeme.start, lexeme.end))
                return
            self._unclosed(lexeme)
        self._end()

    def _token(self, lexeme: Lexeme) -> bool:
        """Take one lexeme; false if nesting has become too deep to go on."""
        if not self.current:
            self.began, self.indent = self.at, self.line_indent
        if lexeme.type in OPENERS:
            if len(self.open) >= MAX_NESTING:
                self.layout.findings.append(_too_deep(lexeme))
                return False
            self.open.append(lexeme)
        elif lexeme.type in CLOSERS and not self._close(lexeme):
            return True
        self.current.append(lexeme)
        return True

    def _close(self, closer: Lexeme) -> bool:
        """Match a closing bracket; false if there is nothing that it could close."""
        opener = CLOSERS[closer.type]
        if all(open_.type != opener for open_ in self.open):
            self.layout.findings.append(_unmatched(closer, self.open))
            return False
        while self.open[-1].type != opener:
            self.layout.findings.append(_unclosed([self.open[-1]], closer))
            self._supply_closer(closer)
        self.open.pop()
        return True

    def _supply_closer(self, before: Lexeme) -> None:
        closer = OPENERS[self.open.pop().type]
        self.current.append(Lexeme(closer, SIGNS[closer], before.source, before.start, before.start))

    def _unclosed(self, before: Lexeme | None) -> None:
        """Report the open brackets, and close them before `before` (the end of the source if None)."""
        self.layout.findings.append(_unclosed(self.open, before))
        while self.open:
            self._supply_closer(before or self.lexemes[-1])

    def _rewind(self, limit: int | None) -> int | None:
        """A bracket proves unclosed before `limit` (or the end): the statement probably ended at an earlier line."""
        lexemes = self.lexemes
        first = next(i for i in range(self.began, len(lexemes)) if lexemes[i] is self.open[0])
        for i in range(first + 1, len(lexemes) if limit is None else limit):
            begins_line = 0 <= lexemes[i].indent <= self.indent
            if begins_line and lexemes[i - 1].type not in _CONTINUES and lexemes[i].type not in CLOSERS:
                return self._cut(i)
        if limit is not None:
            return self._cut(limit)
        self._unclosed(None)
        self._end()
        return None

    def _cut(self, end: int) -> int:
        """End the statement before lexeme `end`, and go on there."""
        limit = self.lexemes[end].start
        findings = self.layout.findings
        findings[self.found :] = [finding for finding in findings[self.found :] if _where(finding) < limit]
        self.current = [lexeme for lexeme in self.current if lexeme.start < limit]
        self.open = []
        for lexeme in self.current:
            if lexeme.type in OPENERS:
                self.open.append(lexeme)
            elif lexeme.type in CLOSERS:
                self.open.pop()
        self._unclosed(self.lexemes[end])
        self._end()
        return end

    def _end(self) -> None:
        if self.current:
            self.layout.statements.append(self.current)
        self.current = []


def _where(finding: Diagnostic) -> int:
    return finding.labels[0].span.start


def _unclosed(openers: list[Lexeme], before: Lexeme | None) -> Diagnostic:
    """The innermost of `openers` is the one most likely forgotten."""
    *outer, opener = openers
    labels = [Label(open_.span, "this is open as well") for open_ in outer[-3:]]
    if before is not None:
        labels.append(Label(before.span, "before this"))
    message = f"a `{SIGNS[opener.type]}` is never closed"
    closers = " ".join(SIGNS[OPENERS[open_.type]] for open_ in reversed(openers[-4:]))
    way_out = f"add a `{closers}`" if not outer else f"close them: `{closers}`"
    return error("unclosed-bracket", message, opener.span, "opened here", *labels, help=way_out)


def _unmatched(closer: Lexeme, openers: list[Lexeme]) -> Diagnostic:
    sign = SIGNS[closer.type]
    labels = [Label(openers[-1].span, "the bracket that is open")] if openers else []
    if openers:
        way_out = f"close `{SIGNS[openers[-1].type]}` with `{SIGNS[OPENERS[openers[-1].type]]}`"
    else:
        way_out = f"remove it, or open `{SIGNS[CLOSERS[closer.type]]}` before it"
    return error("unmatched-bracket", f"this `{sign}` closes nothing", closer.span, "", *labels, help=way_out)


def _semicolon_inside(semicolon: Lexeme, opener: Lexeme) -> Diagnostic:
    return error(
        "semicolon-in-bracket",
        "a `;` ends a statement, and cannot stand inside brackets",
        semicolon.span,
        "",
        Label(opener.span, "still open"),
        help=f"separate with `,`, or close the bracket with `{SIGNS[OPENERS[opener.type]]}` first",
    )


def _too_deep(opener: Lexeme) -> Diagnostic:
    return error(
        "nesting-too-deep",
        f"brackets are nested more than {MAX_NESTING} deep",
        opener.span,
        "one too many",
        help="name inner parts with `let`; what follows here was not looked at",
    )
