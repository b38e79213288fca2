"""The printed IR: what `archc build --print-after=PASS` shows, and what the goldens of the passes hold."""

from __future__ import annotations

from collections.abc import Iterator

from archc.ir.graph import Graph, Layer, OpGraph, Stack, Use, counts
from archc.ir.values import Value


def graph_text(graph: Graph) -> str:
    """The whole model, rolled."""
    names = {layer: f"layer{i}" for i, layer in enumerate(counts(graph.stack))}
    lines = [f"model {graph.settings.name}", "prologue", *_indent(program_lines(graph.prologue))]
    for layer, name in names.items():
        lines += [f"{name}: {layer.text}", *_indent(program_lines(layer.graph))]
    lines += ["epilogue", *_indent(program_lines(graph.epilogue)), "stack", *_indent(_stack_lines(graph.stack, names))]
    return "\n".join(lines) + "\n"


def program_lines(graph: OpGraph) -> Iterator[str]:
    """One line a node: `mixer: x [B, T, d_inner] = silu(x)`."""
    labels: dict[Value, str] = {}

    def show(value: Value) -> str:
        if value not in labels:
            stem = value.name or "_"
            taken = sum(label.split("'")[0] == stem for label in labels.values())
            labels[value] = stem + "'" * taken
        return labels[value]

    yield "in  " + ", ".join(f"{show(value)} {value.shape}" for value in graph.inputs)
    for node in graph.nodes:
        operands = ", ".join(map(show, node.inputs))
        outputs = ", ".join(f"{show(value)} {value.shape}" for value in node.outputs)
        yield f"{node.scope + ': ' if node.scope else ''}{outputs} = {node.op.label} ({operands})"
    yield "out " + ", ".join(map(show, graph.outputs))


def _stack_lines(stack: tuple[Stack, ...], names: dict[Layer, str]) -> Iterator[str]:
    for element in stack:
        if isinstance(element, Use):
            yield names[element.layer]
        else:
            yield f"x{element.count}"
            yield from _indent(_stack_lines(element.body, names))


def _indent(lines: Iterator[str]) -> Iterator[str]:
    return ("  " + line for line in lines)
