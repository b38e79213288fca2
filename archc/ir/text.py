"""The printed IR: what `archc build --print-after=PASS` shows, and what the goldens of the passes hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass

from archc.ir.graph import Graph, Layer, OpGraph, Stack, Use, counts, op_graphs
from archc.ir.size import Size
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
    """Everything that makes two models different, as text: ops with their options, weights, sizes and the stack.

    Names (of the model, of `let`s, of values) are no part of it, nor is the context length, nor an option that has its
    default: an op that gains an option leaves the meaning of older models as it was.
    """
    names = {layer: f"layer{i}" for i, layer in enumerate(counts(graph.stack))}
    lines = [f"{scope.name} {scope.shared}" for layer in names for scope in layer.scopes if scope.shared]
    for op_graph in op_graphs(graph):
        numbers: dict[Value, int] = {}
        for value in [*op_graph.inputs, *(v for node in op_graph.nodes for v in node.outputs)]:
            numbers[value] = len(numbers)
        for node in op_graph.nodes:
            read, written = ([numbers[value] for value in values] for values in (node.inputs, node.outputs))
            lines.append(f"{node.scope}: {written} = {_said(node.op)} {read}")
        lines.append(f"-> {[numbers[value] for value in op_graph.outputs]}")
    return "\n".join([*lines, *_stack_lines(graph.stack, names)])


def _said(value: object) -> str:
    """A value as text: a size by its value, a dataclass by its type and the fields that differ from their defaults."""
    if isinstance(value, Size):
        try:
            return str(value.value)
        except KeyError:  # a size of the workload
            return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        said = [(f.name, getattr(value, f.name)) for f in fields(value) if getattr(value, f.name) != f.default]
        return f"{type(value).__name__}({', '.join(f'{name}={_said(held)}' for name, held in said)})"
    if isinstance(value, tuple):
        return f"({', '.join(map(_said, value))})"
    return repr(value)


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
