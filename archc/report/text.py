"""The report of `archc analyze`: one model under one workload, for a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from archc import units
from archc.passes.flops import TRAINING_FACTOR
from archc.passes.outline import Outline
from archc.report.analysis import Analysis, per_token
from archc.report.conventions import conventions
from archc.report.figures import TOPICS
from archc.report.names import FOREIGN
from archc.report.sizing import Sizing

HEADING = "bold"
QUIET = "dim"
NUMBER = "cyan"
WIDE = 105  # columns from which on the table of groups has room for all digits

COUNTED_AS = {
    "archc": f"{TRAINING_FACTOR} x forward",
    "megatron": "whole square halved, recurrence 7 per state, no router",
    "torchtitan": "6 per active parameter, whole square",
    "palm": "6 N + 12 L H Q T",
}

Row = tuple[str, str, str, str]  # what, exact, short, remark


def report(analysis: Analysis, sizing: Sizing | None = None) -> RenderableType:
    """The whole report; rich lays it out for the width at hand."""
    outline = analysis.outline
    return Group(
        _header(outline),
        _section("stack", Text(outline.text)),
        _section("by layer group", _ByGroup(analysis)),
        _section("parameters", _facts(parameter_rows(analysis)), TOPICS["parameters"]),
        _section(
            f"cache of one sequence at {units.exact(analysis.workload.context)} tokens",
            _facts(cache_rows(analysis)),
            TOPICS["cache"],
        ),
        _section("FLOPs", _facts(flop_rows(analysis)), TOPICS["FLOPs"]),
        *_on_devices(analysis, sizing),
        _section("names", _names(outline)),
        _section("conventions", _bullets(conventions(analysis, sizing))),
        *([_section("defaults in force", _bullets(analysis.defaults))] if analysis.defaults else []),
    )


def _on_devices(analysis: Analysis, sizing: Sizing | None) -> Iterator[RenderableType]:
    if sizing is not None:
        from archc.report.sizing_text import sizing_sections  # not every report needs it

        yield from (_section(*section) for section in sizing_sections(sizing, analysis.workload))


def _header(outline: Outline) -> Text:
    facts = [
        f"{units.exact(outline.n_layers)} layers",
        f"d_model {units.exact(outline.d_model)}",
        f"vocab {units.exact(outline.vocab)}",
        *([f"context {units.exact(outline.context)}"] if outline.context else []),
        "tied head" if outline.tied else "untied head",
        *(["fp32 residual stream"] if outline.residual_fp32 else []),
    ]
    return Text.assemble((outline.name, "bold green"), "  ", ", ".join(facts))


def _section(title: str, content: RenderableType, topics: Sequence[str] = ()) -> RenderableType:
    """`topics` are what `archc explain` knows about the figures."""
    heading = Text(title, HEADING)
    if topics:
        heading.append(f"  (explain {', '.join(topics)})", QUIET)
    return Group("", heading, Padding(content, (0, 0, 0, 2)))


def _bullets(lines: Iterable[str]) -> RenderableType:
    return Text("\n".join(lines), QUIET)


def _facts(rows: Iterable[Row]) -> Table:
    """Label, exact number, short form, remark."""
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(justify="right", style=NUMBER, no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(style=QUIET)
    for row in rows:
        table.add_row(*row)
    return table


# --- tables ----------------------------------------------------------------------------------------


class _ByGroup:
    """A row for each group of layers. Columns that say nothing about this model are left out."""

    def __init__(self, analysis: Analysis) -> None:
        self.analysis = analysis

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        wide = options.max_width >= WIDE
        columns = [column for column in _columns(self.analysis, wide) if column is not None]
        table = Table(
            box=box.SIMPLE_HEAD,
            padding=(0, 1) if wide else (0, 1, 0, 0),
            pad_edge=False,
            show_edge=False,
            show_footer=True,
            header_style=QUIET,
        )
        table.add_column("group", "total", overflow="fold")
        for column in columns:
            table.add_column(column.title, column.total, justify="right", no_wrap=True)
        for i, group in enumerate(self.analysis.params.groups):
            table.add_row(group.name, *(column.cells[i] for column in columns))
        yield table


class _Column(NamedTuple):
    title: str
    cells: list[str]
    total: str


def _columns(analysis: Analysis, wide: bool) -> Iterator[_Column | None]:
    """Where there is room, with all digits and everybody's share of the FLOPs."""
    params, state, flops = analysis.params, analysis.state, analysis.flops
    counted = units.exact if wide else units.count
    layers = [group.times if group.is_layer else 0 for group in params.groups]
    yield _column("count", layers, analysis.outline.n_layers, units.exact)
    yield _column("parameters", [group.total for group in params.groups], params.total, counted)
    if params.routed:
        yield _column("active", [group.active for group in params.groups], params.active, counted)
    per_token_bytes = [group.kv_per_token.n_bytes for group in state.groups]
    yield _column("KV B/token", per_token_bytes, state.total.kv_per_token.n_bytes, units.exact)
    recurrent = [group.recurrent.n_bytes for group in state.groups]
    yield _column("state", recurrent, state.total.recurrent.n_bytes, units.binary_bytes)
    operations = [group.model for group in flops.groups]
    means = [per_token(n, analysis.workload) for n in operations]
    yield _column("FLOPs/token", means, analysis.model_flops_per_token, units.flops)
    if wide:
        model = flops.total.model
        yield _column("share", operations, model, lambda n: units.percent(n, model))


def _column(title: str, numbers: list[int], total: int, text: Callable[[int], str]) -> _Column | None:
    return _Column(title, [text(n) if n else "-" for n in numbers], text(total)) if total else None


def parameter_rows(analysis: Analysis) -> Iterable[Row]:
    params, dtype = analysis.params, analysis.workload.dtype
    yield _counted("total", params.total, f"{units.binary_bytes(params.weight_bytes)} of weights in {dtype}")
    share = f"{units.percent(params.active, params.total)} of total, for one token" if params.routed else ""
    yield _counted("active", params.active, share)
    if params.unrolled != params.total:
        yield _counted("unrolled", params.unrolled, "a shared module once for each use: what computes")
    if params.routed:
        yield _counted("routed experts", params.routed, "all of them; a token goes through k of E")
    yield _counted("embedding", params.embedding, "its matrix is the head's as well" if analysis.outline.tied else "")
    if params.head:
        yield _counted("head", params.head, "")
    yield _counted("total without embedding", params.total - params.embedding, "")
    yield _counted("active without embedding", params.active - params.embedding, "")


def cache_rows(analysis: Analysis) -> Iterable[Row]:
    state, workload = analysis.state.total, analysis.workload
    if state.kv.elements:
        per = f"{units.exact(state.kv_per_token.n_bytes)} B per token, {workload.kv_dtype}"
        yield _stored("KV", state.kv.n_bytes, per)
        if state.kv != state.kv_unwindowed:
            yield _stored("KV without windows", state.kv_unwindowed.n_bytes, "what caches that keep everything hold")
    if state.ssm.elements:
        yield _stored(
            "SSM state", state.ssm.n_bytes, f"{units.exact(state.ssm.elements)} elements, {workload.state_dtype}"
        )
    if state.conv.elements:
        remark = f"{units.exact(state.conv.elements)} elements, {workload.dtype}, d_conv - 1 columns"
        yield _stored("conv state", state.conv.n_bytes, remark)
        wide = f"{units.exact(state.conv_wide.elements)} elements, as mamba_ssm and transformers hold it"
        yield _stored("conv state of d_conv", state.conv_wide.n_bytes, wide)
    yield _stored("one sequence", analysis.state_bytes, "")
    if workload.batch > 1:
        yield _stored(f"{units.exact(workload.batch)} sequences", workload.batch * analysis.state_bytes, "")


def flop_rows(analysis: Analysis) -> Iterable[Row]:
    workload, kernels, batch = analysis.workload, analysis.kernel_flops.total, analysis.workload.batch
    yield _operations("forward, model, per token", analysis.model_flops_per_token, "mean over the sequence")
    yield _training(analysis)
    yield _operations("forward, model, per sequence", analysis.model_flops, "")
    yield _operations("forward, kernels, per sequence", kernels.forward // batch, "")
    yield _operations("backward, kernels, per sequence", kernels.backward // batch, "")
    yield _operations("decode step", analysis.flops.total.decode // batch, f"at token {units.exact(workload.context)}")
    if batch > 1:
        yield _operations(f"forward, model, {units.exact(batch)} sequences", analysis.flops.total.model, "")


def _training(analysis: Analysis) -> Row:
    ours = analysis.convention == "archc"
    label = f"training, {'model' if ours else analysis.convention}, per token"
    return _operations(label, analysis.training_flops_per_token, COUNTED_AS[analysis.convention])


def _counted(label: str, n: int, remark: str) -> Row:
    return label, units.exact(n), units.count(n), remark


def _stored(label: str, n: int, remark: str) -> Row:
    return label, f"{units.exact(n)} B", units.binary_bytes(n), remark


def _operations(label: str, n: int, remark: str) -> Row:
    return label, units.exact(n), units.flops(n), remark


def _names(outline: Outline) -> Table:
    """Our names for the sizes of this model, with those of others."""
    table = Table(box=None, pad_edge=False, header_style=QUIET)
    table.add_column("archc")
    table.add_column("value", justify="right", style=NUMBER)
    table.add_column("Hugging Face", style=QUIET)
    table.add_column("mamba_ssm", style=QUIET)
    sizes = {"n_layers": (outline.n_layers,), **dict(outline.sizes)}
    if outline.context:
        sizes["context"] = (outline.context,)
    for name, values in sizes.items():
        foreign = FOREIGN.get(name)
        theirs = (foreign.hugging_face, foreign.mamba_ssm) if foreign else ("", "")
        table.add_row(name, ", ".join(map(units.exact, values)), *theirs)
    return table
