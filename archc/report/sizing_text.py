"""The part of the report about devices: memory and fit, lower bounds of time, costs of ops, memory over the context."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from archc import units
from archc.passes.roofline import Bound
from archc.passes.workload import Workload
from archc.report.figures import TOPICS
from archc.report.sizing import Point, Sized, Sizing

QUIET = "dim"
BAR = 48  # columns of the longest bar of a curve
NOTHING = "-"


def sizing_sections(sizing: Sizing, workload: Workload) -> Iterator[tuple[str, RenderableType, tuple[str, ...]]]:
    """Title and content of every section, and what explains its figures."""
    yield _memory_title(sizing), memory_table(sizing, workload), TOPICS["memory"]
    if any(sized.roofline for sized in sizing.phases):
        yield "lower bounds of time by layer group", bounds_table(sizing), TOPICS["bounds"]
    if sizing.request.ops:
        for sized in sizing.phases:
            yield f"{sized.phase}, one use of every op", ops_table(sized), TOPICS["ops"]
    if sizing.curve:
        yield "weights, KV and state of one device over the context", curve_text(sizing), TOPICS["cache"]


def _memory_title(sizing: Sizing) -> str:
    request = sizing.request
    device = "a device" if request.device is None else request.device.name
    size = f" ({units.binary_bytes(request.capacity)})" if request.capacity is not None else ""
    devices = "" if request.plan.n_devices == 1 else f" of {units.exact(request.plan.n_devices)}: {request.plan.text}"
    return f"memory of {device}{size}{devices}"


def grid(*titles: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False, show_edge=False, header_style=QUIET)
    for i, title in enumerate(titles):
        table.add_column(title, justify="right" if i else "left", no_wrap=bool(i))
    return table


def memory_table(sizing: Sizing, workload: Workload) -> Table:
    """A column for each phase: what is held, the peak, whether it fits and how much would."""
    table = grid("", *(sized.phase for sized in sizing.phases))
    names = dict.fromkeys(part.name for sized in sizing.phases for part in sized.memory.parts)
    for name in names:
        held = [{part.name: part.n_bytes for part in sized.memory.parts} for sized in sizing.phases]
        table.add_row(name, *(units.binary_bytes(parts[name]) if name in parts else NOTHING for parts in held))
    table.add_section()
    for label, cells in memory_rows(sizing, workload):
        table.add_row(label, *cells)
    return table


def memory_rows(sizing: Sizing, workload: Workload) -> Iterator[tuple[str, list[str]]]:
    """What follows from the parts: label, and a cell for each phase."""
    phases = sizing.phases
    yield "peak", [units.binary_bytes(sized.memory.peak.n_bytes) for sized in phases]
    yield "  at", [sized.memory.peak.name for sized in phases]
    if sizing.request.plan.pp > 1:
        yield "  in stage", [units.exact(sized.memory.stage + 1) for sized in phases]
    capacity = sizing.request.capacity
    if capacity is not None:
        yield "fits", [_verdict(capacity - sized.memory.peak.n_bytes) for sized in phases]
        batch = f"largest context at batch {units.exact(workload.batch)}"
        yield batch, [_most(sized.largest_context) for sized in phases]
        yield f"largest batch at {units.exact(workload.context)}", [_most(sized.largest_batch) for sized in phases]
    if any(sized.roofline for sized in phases):
        yield "time, at least", [_seconds(sized.roofline.total) if sized.roofline else NOTHING for sized in phases]
        yield "  bound by", [sized.roofline.total.limit if sized.roofline else NOTHING for sized in phases]
        yield "tokens/s, at most", [_speed(sized, workload) for sized in phases]


def _verdict(left: int) -> str:
    return f"yes, {units.binary_bytes(left)} left" if left >= 0 else f"no, {units.binary_bytes(-left)} over"


def _most(n: int | None) -> str:
    return "none" if not n else units.exact(n)


def _seconds(bound: Bound) -> str:
    return units.duration(float(bound.seconds))


def _speed(sized: Sized, workload: Workload) -> str:
    """Of one replica of the model."""
    if sized.roofline is None:
        return NOTHING
    tokens = workload.batch if sized.phase == "decode" else workload.n_tokens
    return units.exact(sized.roofline.tokens_per_second(tokens))


def bounds_table(sizing: Sizing) -> Table:
    """A row for each layer group: the least time of each phase, and what it is bound by."""
    bounded = [sized.roofline for sized in sizing.phases if sized.roofline is not None]
    table = grid("group", *(text for bound in bounded for text in (bound.phase, "by")))
    for i, group in enumerate(bounded[0].groups):
        table.add_row(group.name, *_bounds([bound.groups[i] for bound in bounded]))
    table.add_section()
    table.add_row("total", *_bounds([bound.total for bound in bounded]))
    return table


def _bounds(bounds: list[Bound]) -> list[str]:
    return [text for bound in bounds for text in (_seconds(bound), bound.limit)]


def ops_table(sized: Sized) -> Table:
    """A row for each op: FLOPs by the mathematics and by the kernels, and the bytes that it moves."""
    table = grid("op", "uses", "model FLOPs", "kernel FLOPs", "reads", "writes")
    for group in sized.costs.groups:
        table.add_section()
        table.add_row(Text(group.name, "bold"))
        for op in group.ops:
            flops = (units.flops(n) if n else NOTHING for n in (op.each.model_flops, op.each.flops))
            moved = (units.binary_bytes(n) if n else NOTHING for n in (op.each.read, op.each.written))
            name = f"  {op.scope + ': ' if op.scope else ''}{op.label}"
            table.add_row(Text(name, overflow="fold"), units.exact(group.times), *flops, *moved)
    return table


def curve_text(sizing: Sizing) -> Text:
    """A bar for each context: weights, KV, state; a mark where the device ends."""
    capacity = sizing.request.capacity
    most = max([point.total for point in sizing.curve] + ([capacity] if capacity else []))
    width = max(len(units.exact(point.context)) for point in sizing.curve)
    lines = [_bar(point, most, width, capacity) for point in sizing.curve]
    key = Text("█ weights  ▓ KV  ░ SSM and conv state" + ("  | the device's memory" if capacity else ""), QUIET)
    return Text("\n").join([*lines, key])


def _bar(point: Point, most: int, width: int, capacity: int | None) -> Text:
    ends = [round(BAR * n / most) for n in (point.weights, point.weights + point.kv, point.total)]
    drawn = "█" * ends[0] + "▓" * (ends[1] - ends[0]) + "░" * (ends[2] - ends[1])
    line = list(drawn.ljust(BAR + 1))
    if capacity:
        place = round(BAR * capacity / most)
        line[place] = "|" if line[place] == " " else line[place]
    return Text(f"{units.exact(point.context):>{width}}  {''.join(line)}  {units.binary_bytes(point.total)}")
