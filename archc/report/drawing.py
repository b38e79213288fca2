"""The stack of a model as a drawing, rolled as it is: DOT for Graphviz, Mermaid for Markdown.

A repeat is a box around what it repeats, with its count; a shared module stands once beside the layers that use it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from archc.passes.outline import Outline, Run
from archc.passes.spelling import words


@dataclass
class Node:
    """A layer, an end of the model or a shared module."""

    name: str
    text: str


@dataclass
class Box:
    """What repeats, and how often."""

    name: str
    count: int
    inside: list[Node | Box] = field(default_factory=list)


@dataclass
class Drawing:
    """Boxes and nodes in order; `line` runs through all of them, `shared` nodes point at the layers that use them."""

    boxes: list[Node | Box]
    line: list[Node]
    shared: dict[str, Node]
    links: list[tuple[Node, Node]]


def drawing(outline: Outline) -> Drawing:
    """The drawing of a model."""
    shared = {}
    for i, statement in enumerate(outline.shares):
        name = statement.removeprefix("share ").split("(")[0].split()[0]
        shared[name] = Node(f"s{i}", " ".join(statement.split()))
    line: list[Node] = [Node("tokens", f"tokens of {outline.vocab:,}"), Node("embed", f"embedding {outline.d_model:,}")]
    links: list[tuple[Node, Node]] = []
    boxes = 0

    def drawn(elements: tuple[Run | str, ...]) -> list[Node | Box]:
        nonlocal boxes
        found: list[Node | Box] = []
        for element in elements:
            if isinstance(element, str):
                node = Node(f"l{len(line) - 2}", element)
                line.append(node)
                links.extend((shared[name], node) for name in sorted(words(element) & shared.keys()))
                found.append(node)
            else:
                boxes += 1
                box = Box(f"r{boxes}", element.count)
                box.inside = drawn(element.body)
                found.append(box)
        return found

    stack = drawn(outline.stack)
    ends = [Node("norm", "norm"), Node("head", "head, tied" if outline.tied else "head")]
    line += ends
    return Drawing([*line[:2], *stack, *ends], line, shared, links)


def mermaid(outline: Outline) -> str:
    """A flowchart, as Markdown on GitHub draws it."""

    def lines(elements: list[Node | Box], indent: str) -> Iterator[str]:
        for element in elements:
            if isinstance(element, Node):
                yield f'{indent}{element.name}["{_html(element.text)}"]'
            else:
                yield f'{indent}subgraph {element.name}["x{element.count:,}"]'
                yield from lines(element.inside, indent + "  ")
                yield f"{indent}end"

    picture = drawing(outline)
    text = ["flowchart TB", *lines(picture.boxes, "  "), *lines([*picture.shared.values()], "  ")]
    text.append("  " + " --> ".join(node.name for node in picture.line))
    text += [f"  {shared.name} -.-> {user.name}" for shared, user in picture.links]
    return "\n".join(text) + "\n"


def dot(outline: Outline) -> str:
    """A digraph, as Graphviz draws it."""

    def lines(elements: list[Node | Box], indent: str) -> Iterator[str]:
        for element in elements:
            if isinstance(element, Node):
                yield f"{indent}{element.name} [label={_quoted(element.text)}]"
            else:
                yield f"{indent}subgraph cluster_{element.name} {{"
                yield f'{indent}  label="x{element.count:,}"'
                yield from lines(element.inside, indent + "  ")
                yield f"{indent}}}"

    picture = drawing(outline)
    text = [f"digraph {_quoted(outline.name)} {{", "  node [shape=box fontname=monospace]"]
    text += [*lines(picture.boxes, "  "), *lines([*picture.shared.values()], "  ")]
    text.append("  " + " -> ".join(node.name for node in picture.line))
    text += [f"  {shared.name} -> {user.name} [style=dashed]" for shared, user in picture.links]
    return "\n".join([*text, "}"]) + "\n"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _html(text: str) -> str:
    for sign, name in (("&", "&amp;"), ('"', "&quot;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(sign, name)
    return text
