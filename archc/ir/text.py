"""The printed IR: what `archc build --print-after=PASS` shows, and what the goldens of the passes hold."""

from __future__ import annotations

from collections.abc import Iterator

from archc.ir.graph import Graph, Layer, OpGraph, Stack, Use, counts, op_graphs
from archc.ir.values import Value


def graph_text(graph: Graph) -> str:
    """The whole model, rolled."""
    names = {layer: f"layer{i}" for i, layer in enumerate(counts(graph.stack))}
    lines = [f"model {graph.settings.name}", "prologue", *_indent(program_lines(graph.prologue))]
    for layer, name in names.items():
        lines += [f"{name}: {layer.text}", *_indent(program_lines(layer.graph))]
    lines += ["epilogue", *_indent(program_lines(graph.epilogue)), "stack", *_indent(_stack_lines(graph.stack, names))]
    return "\n".join(lines) + "\n"


def meaning(graph: Graph) -> str:
    """Everything that makes two models different, as text: ops with all their options, weights, sizes and the stack.

    Names of the model and of the spec's `let`s are no part of it, nor is the context length.
    """
    names = {layer: f"layer{i}" for i, layer in enumerate(counts(graph.stack))}
    lines = [f"{scope.name} {scope.shared}" for layer in names for scope in layer.scopes if scope.shared]
    for op_graph in op_graphs(graph):
        lines += [f"{node.scope}: {node.op!r}" for node in op_graph.nodes]
        lines += list(program_lines(op_graph))
    return "\n".join([*lines, *_stack_lines(graph.stack, names)])


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
