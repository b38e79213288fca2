"""From text to lexemes: comments set aside, characters and numbers checked.

The terminals are those of `arch.lark`. What matches none of them is reported and then left out, or
stood in for, so that the parser can look for further errors behind it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from archc.diagnostics import Diagnostic, Source, Span
from archc.grammar import characters, numbers
from archc.grammar.lexemes import Lexeme
from archc.grammar.sources import MAX_FINDINGS
from archc.grammar.tables import tables
from archc.grammar.tree import Comment

BYTE_ORDER_MARK = "\ufeff"

# Of what cannot be seen, comments refuse controls and what reorders text: a comment must not be able to
# look like code, nor code like a comment (CVE-2021-42574).
_UNSAFE_IN_COMMENT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

_CHECKS: dict[str, Callable[[Lexeme], Diagnostic | None]] = {
    "NUMBER": numbers.check_number,
    "REPEAT": numbers.check_count,
    "TOPK": numbers.check_count,
    "BAD_NUMBER": numbers.explain_bad_number,
    "BAD_WORD": characters.explain_word,
    "BAD_PAIR": characters.explain_pair,
    "BAD_SIGN": characters.explain_sign,
}

# What the parser is given in place of a lexeme that was reported; other signs are left out.
_STAND_INS = {"NUMBER": ("NUMBER", "1"), "BAD_NUMBER": ("NUMBER", "1"), "BAD_WORD": ("NAME", "_"),
              "REPEAT": ("REPEAT", "x1"), "TOPK": ("TOPK", "top1/1")}  # fmt: skip
_SIGNS = {"<": "LESS", ">": "MORE", "(": "LPAR", ")": "RPAR", "[": "LSQB", "]": "RSQB", ",": "COMMA", "=": "EQUAL",
          "+": "PLUS", "-": "MINUS", "*": "STAR", "/": "SLASH", "||": "PARALLEL", "<-": "FEED", "..": "DOTS",
          ";": "SEMICOLON"}  # fmt: skip


@dataclass(slots=True)
class Scan:
    """What `scan` found. The lexemes hold no line ends: `Lexeme.indent` tells where lines begin."""

    lexemes: list[Lexeme] = field(default_factory=list)
    comments: list[Comment] = field(default_factory=list)
    findings: list[Diagnostic] = field(default_factory=list)


def scan(source: Source, start: int = 0) -> Scan:
    """The lexemes of `source` from offset `start` on."""
    found = Scan()
    run: Lexeme | None = None  # of equal bad signs, which are one mistake
    line_start = start  # -1 as soon as the line has a lexeme
    for token in tables().lex(source.text[start:] if start else source.text):
        if len(found.findings) >= MAX_FINDINGS:
            break
        kind = token.type
        offset = start + (token.start_pos or 0)
        if kind == "NEWLINE":
            line_start = offset + len(token)
            continue
        if kind == "BAD_SIGN" and offset == 0 and token == BYTE_ORDER_MARK:
            line_start = 1
            continue
        lexeme = Lexeme(kind, str(token), source, offset, offset + len(token))
        if kind == "COMMENT":
            _comment(found, lexeme, own_line=line_start >= 0)
            continue
        if kind == "BAD_SIGN" and run and run.end == offset and run.text[0] == lexeme.text:
            run.end = lexeme.end
            found.findings[-1] = characters.explain_sign(run)
            continue
        run = lexeme if kind == "BAD_SIGN" else None
        if line_start >= 0:
            lexeme.indent = len(source.text[line_start:offset].expandtabs(8))
            line_start = -1
        if kind in _CHECKS:
            _check(found, lexeme)
        else:
            found.lexemes.append(lexeme)
    return found


def _comment(found: Scan, lexeme: Lexeme, *, own_line: bool) -> None:
    text = lexeme.text.rstrip()
    found.comments.append(
        Comment(span=Span(lexeme.source, lexeme.start, lexeme.start + len(text)), text=text, own_line=own_line)
    )
    for match in _UNSAFE_IN_COMMENT.finditer(text):
        at = lexeme.start + match.start()
        found.findings.append(characters.explain_invisible(Lexeme("BAD_SIGN", match[0], lexeme.source, at, at + 1)))


def _check(found: Scan, lexeme: Lexeme) -> None:
    """Report what is wrong with `lexeme`, and keep what the parser can go on with."""
    finding = _CHECKS[lexeme.type](lexeme)
    if finding is None:
        found.lexemes.append(lexeme)
        return
    found.findings.append(finding)
    stand_in = _STAND_INS.get(lexeme.type)
    if stand_in is None:
        sign = characters.plain_sign(lexeme)
        stand_in = (_SIGNS[sign], sign) if sign in _SIGNS else None
    if stand_in is not None:
        found.lexemes.append(Lexeme(*stand_in, lexeme.source, lexeme.start, lexeme.end, lexeme.indent))
