"""A bound on the depth of trees, so that whoever walks them may use recursion.

Brackets are bounded by layout; what else grows a tree is a chain of operators (`1+1+1+...`).
"""

from __future__ import annotations

from archc.diagnostics import Diagnostic, error
from archc.grammar.layout import MAX_NESTING
from archc.grammar.lexemes import Lexeme
from archc.grammar.tree import Node

MAX_DEPTH = 4 * MAX_NESTING  # of nodes; a bracket alone makes up to three

_OPERATORS = frozenset({"PLUS", "MINUS", "STAR", "SLASH"})


def too_deep(node: Node, lexemes: list[Lexeme]) -> Diagnostic | None:
    """The finding that a statement's tree is deeper than others can walk, if it is."""
    if sum(lexeme.type in _OPERATORS for lexeme in lexemes) <= MAX_NESTING:
        return None
    deepest = _below(node, MAX_DEPTH)
    if deepest is None:
        return None
    return error(
        "expression-too-long",
        "an expression chains too many operators",
        deepest.span,
        "too deep from here on",
        help="write the result, or fewer terms",
    )


def _below(root: Node, limit: int) -> Node | None:
    """Some node more than `limit` below `root`, if there is one."""
    layer = [root]
    for _ in range(limit):
        layer = [child for node in layer for child in _children(node)]
    return layer[0] if layer else None


def _children(node: Node) -> list[Node]:
    found: list[Node] = []
    for name in type(node).__slots__:
        value = getattr(node, name)
        if isinstance(value, Node):
            found.append(value)
        elif isinstance(value, tuple):
            found.extend(part for part in value if isinstance(part, Node))
    return found
