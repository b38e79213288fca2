"""The outline of a model: its stack, still rolled, in the words of the language, and the sizes that have names in it.

`let`s, `share`s and a block together mean the stack: text that elaborates to the same layers, whatever sugar the spec
has. Copies of a shared module take turns by themselves, so uses of different copies are written alike.

Before: `Repeat(4, (Repeat(2, (layer0, layer1)), layer2, layer1))`
After:  `let`s for the kinds and `Run(4, (Run(2, ("mamba + swiglu", "mamba + moe")), "attn + swiglu", "mamba + moe"))`
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from archc.ir.graph import Graph, OpGraph, Stack, Use, counts, op_graphs
from archc.ir.values import Axis
from archc.passes.grouping import layer_label, norm_of, shares, sublayer_labels
from archc.passes.spelling import spelled, spelled_share

MAX_LINE = 88  # columns of the drawn stack


@dataclass(frozen=True, slots=True)
class Run:
    """`count` passes over layers and runs of layers."""

    count: int
    body: tuple[Run | str, ...]


@dataclass(frozen=True, slots=True)
class Outline:
    """A model at a glance.

    `lets` are (label, definition) of its layer kinds, `shares` the statements of its shared modules, `sizes` named axes
    and their values.
    """

    name: str
    n_layers: int
    d_model: int
    vocab: int
    context: int | None
    tied: bool
    residual_fp32: bool
    lets: tuple[tuple[str, str], ...]
    shares: tuple[str, ...]
    stack: tuple[Run | str, ...]
    sizes: tuple[tuple[str, tuple[int, ...]], ...]
    defaults: tuple[str, ...]

    @property
    def text(self) -> str:
        """The stack as the language writes it."""
        lets = [f"let {label} = {definition}" for label, definition in self.lets if label != definition]
        return "\n".join([*lets, *map(_statement, self.shares), _block(self.stack)])


def outline(graph: Graph) -> Outline:
    """The outline of a model."""
    labels, settings = sublayer_labels(graph), graph.settings
    return Outline(
        name=settings.name,
        n_layers=sum(counts(graph.stack).values()),
        d_model=settings.d_model.size.value,
        vocab=settings.vocab.size.value,
        context=settings.context,
        tied=settings.tied,
        residual_fp32=settings.residual_fp32,
        lets=tuple((label, spelled(kind, norm_of(graph))) for kind, label in labels.items()),
        shares=tuple(spelled_share(scope, norm_of(graph)) for scope in shares(graph).values()),
        stack=_runs(graph.stack, labels),
        sizes=_sizes(graph),
        defaults=graph.defaults,
    )


def _runs(stack: tuple[Stack, ...], labels: dict[object, str]) -> tuple[Run | str, ...]:
    def run(element: Stack) -> Run | str:
        if isinstance(element, Use):
            return layer_label(element.layer, labels)
        return _folded(element.count, _runs(element.body, labels))

    return tuple(map(run, stack))


def _folded(times: int, body: tuple[Run | str, ...]) -> Run:
    """`times` passes over `body`, which may itself be a stretch that repeats: its uses of shared copies look alike."""
    n = len(body)
    width = next(width for width in range(1, n + 1) if n % width == 0 and body == body[:width] * (n // width))
    unit = body[:width]
    if len(unit) == 1 and isinstance(unit[0], Run):
        return Run(times * (n // width) * unit[0].count, unit[0].body)
    return Run(times * (n // width), unit)


def _statement(text: str) -> str:
    """On one line if it is short."""
    one_line = " ".join(line.strip() for line in text.splitlines())
    return one_line if len(one_line) <= MAX_LINE else text


def _block(stack: tuple[Run | str, ...]) -> str:
    """The whole stack as one block, which a single run needs no bracket in."""
    run = stack[0] if len(stack) == 1 and isinstance(stack[0], Run) else Run(1, stack)
    return f"block{_times(run)} {_bracket(run.body, 0)}"


def _times(run: Run) -> str:
    return f" x{run.count}" if run.count > 1 else ""


def _bracket(body: tuple[Run | str, ...], indent: int) -> str:
    """`< a, b >` on one line if it is short, else a line for each item. Equal neighbours are written `a x3`."""
    one_line = f"< {', '.join(map(_inline, body))} >"
    if len(one_line) + indent <= MAX_LINE:
        return one_line
    pad = " " * (indent + 2)
    items = "".join(f"{pad}{_item(element, indent + 2)},\n" for element in body)
    return f"<\n{items.removesuffix(',' + chr(10))}\n{' ' * indent}>"


def _inline(element: Run | str) -> str:
    if isinstance(element, str):
        return element
    if len(element.body) == 1 and isinstance(element.body[0], str):
        return f"{element.body[0]} x{element.count}"
    return f"< {', '.join(map(_inline, element.body))} > x{element.count}"


def _item(element: Run | str, indent: int) -> str:
    if isinstance(element, str) or (len(element.body) == 1 and isinstance(element.body[0], str)):
        return _inline(element)
    return f"{_bracket(element.body, indent)} x{element.count}"


# --- sizes -----------------------------------------------------------------------------------------


def _sizes(graph: Graph) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Every axis that has a name of its own and a fixed size, with all the sizes that it has in this model."""
    found: dict[str, set[int]] = {}
    for op_graph in op_graphs(graph):
        for axis in _axes(op_graph):
            if axis.name.isidentifier() and not _free(axis):
                found.setdefault(axis.name, set()).add(axis.size.value)
    return tuple((name, tuple(sorted(sizes))) for name, sizes in found.items())


def _axes(graph: OpGraph) -> Iterator[Axis]:
    for node in graph.nodes:
        for value in node.outputs:
            yield from value.axes
        for weight in node.op.weights():
            yield from weight.axes


def _free(axis: Axis) -> bool:
    """Whether its size depends on the workload."""
    try:
        axis.size.at()
    except KeyError:
        return True
    return False
