"""A diagnostic as text, in the manner of rustc, and as plain data.

```
error[uneven-heads]: 32 query heads cannot share 12 key/value heads
 --> specs/tiny.arch:8:24
  |
8 | block x4 < attn gqa(32,12) >
  |                     -- ^^ does not divide 32
  = help: n_kv_heads may be 1, 2, 4, 8, 16 or 32
```
"""

from __future__ import annotations

from collections.abc import Iterable

from archc.diagnostics.canvas import Style, paint, visible
from archc.diagnostics.findings import Diagnostic, Label, Source
from archc.diagnostics.snippet import Snippet


def render(diagnostic: Diagnostic, *, colour: bool) -> str:
    """The diagnostic as lines of text, the last one without a line end."""
    severity: Style = "error" if diagnostic.severity == "error" else "warning"
    head = paint(f"{diagnostic.severity}[{diagnostic.code}]", severity, colour)
    lines = [head + paint(f": {visible(diagnostic.message)}", "strong", colour)]
    snippets = [Snippet(source, labels, severity) for source, labels in _by_source(diagnostic.labels)]
    width = max((snippet.number_width for snippet in snippets), default=1)
    for i, snippet in enumerate(snippets):
        arrow = "-->" if i == 0 else ":::"
        lines.append(" " * width + paint(arrow, "frame", colour) + f" {snippet.place}")
        lines += snippet.lines(width, colour)
    if diagnostic.help:
        lines += _help(diagnostic.help, width, colour)
    return "\n".join(lines)


def _by_source(labels: Iterable[Label]) -> list[tuple[Source, list[Label]]]:
    """Labels of one source together; the source of the primary label first."""
    groups: dict[int, tuple[Source, list[Label]]] = {}
    for label in sorted(labels, key=lambda label: not label.primary):
        groups.setdefault(id(label.span.source), (label.span.source, []))[1].append(label)
    return list(groups.values())


def _help(text: str, width: int, colour: bool) -> list[str]:
    first, *more = (visible(line) for line in text.split("\n"))
    lead = " " * (width + 1) + paint("=", "frame", colour) + paint(" help", "strong", colour) + ": "
    return [lead + first, *(" " * (width + 9) + line for line in more)]


def to_json(diagnostic: Diagnostic) -> dict[str, object]:
    """The diagnostic as plain data: lines and columns count from 1, offsets from 0, all in code points."""
    return {
        "code": diagnostic.code,
        "severity": diagnostic.severity,
        "message": diagnostic.message,
        "help": diagnostic.help,
        "labels": [
            {
                "source": label.span.source.name,
                "start": _place(label.span.source, label.span.start),
                "end": _place(label.span.source, label.span.end),
                "text": label.text,
                "primary": label.primary,
            }
            for label in diagnostic.labels
        ],
    }


def _place(source: Source, offset: int) -> dict[str, int]:
    line, column = source.position(offset)
    return {"line": line, "column": column, "offset": offset}
