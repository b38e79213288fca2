"""The report as Markdown: the rows of the text, in tables that render where issues and papers are written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from archc import units
from archc.report.analysis import Analysis, per_token
from archc.report.conventions import conventions
from archc.report.sizing import Sizing
from archc.report.sizing_text import memory_rows
from archc.report.text import cache_rows, flop_rows, parameter_rows


def markdown(analysis: Analysis, sizing: Sizing | None = None) -> str:
    """The whole report, with a line end."""
    return "\n".join(_lines(analysis, sizing)) + "\n"


def _lines(analysis: Analysis, sizing: Sizing | None) -> Iterator[str]:
    outline, workload = analysis.outline, analysis.workload
    yield from (f"# {outline.name}", "", "```", *outline.text.splitlines(), "```")
    yield from _titled("By layer group", _groups(analysis))
    facts = ("", "exact", "", "")
    yield from _titled("Parameters", table(facts, parameter_rows(analysis)))
    yield from _titled(
        f"Cache of one sequence at {units.exact(workload.context)} tokens", table(facts, cache_rows(analysis))
    )
    yield from _titled("FLOPs", table(facts, flop_rows(analysis)))
    if sizing is not None:
        yield from _titled("Memory of a device", _memory(analysis, sizing))
    yield from _titled("Conventions", [f"- {line}" for line in conventions(analysis, sizing)])


def _titled(title: str, lines: Iterable[str]) -> Iterator[str]:
    yield from ("", f"## {title}", "", *lines)


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """A table whose first column is text and whose others are numbers."""
    yield _row(titles)
    yield "|---|" + "---:|" * (len(titles) - 1)
    yield from map(_row, rows)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.strip().replace('|', chr(92) + '|') for cell in cells)} |"


def _groups(analysis: Analysis) -> Iterator[str]:
    rows = []
    for params, state, flops in zip(analysis.params.groups, analysis.state.groups, analysis.flops.groups, strict=True):
        numbers = (params.times, params.total, params.active, state.kv_per_token.n_bytes, state.recurrent.n_bytes)
        rows.append((params.name, *map(units.exact, (*numbers, per_token(flops.model, analysis.workload)))))
    return table(("group", "count", "parameters", "active", "KV B/token", "state B", "FLOPs/token"), rows)


def _memory(analysis: Analysis, sizing: Sizing) -> Iterator[str]:
    names = dict.fromkeys(part.name for sized in sizing.phases for part in sized.memory.parts)
    held = [{part.name: part.n_bytes for part in sized.memory.parts} for sized in sizing.phases]
    rows = [[name, *(units.binary_bytes(parts[name]) if name in parts else "-" for parts in held)] for name in names]
    rows += [[label, *cells] for label, cells in memory_rows(sizing, analysis.workload)]
    return table(("", *(sized.phase for sized in sizing.phases)), rows)
