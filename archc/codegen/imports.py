"""Import lines in isort's order, and which emitted files need which others."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable

FUTURE = "from __future__ import annotations"


def import_lines(wanted: Iterable[tuple[str, str]]) -> list[str]:
    """Lines for (module, name) pairs; name "" imports the module itself. Sections are separated by an empty line."""
    by_module: dict[str, set[str]] = {}
    for module, name in wanted:
        by_module.setdefault(module, set()).add(name)
    sections: dict[int, list[str]] = {}
    for module in sorted(by_module, key=lambda m: (_section(m), "" not in by_module[m], _natural(m))):
        names = by_module[module] - {""}
        lines = sections.setdefault(_section(module), [])
        if "" in by_module[module]:
            lines.append(f"import {module}")
        if names:
            lines.append(f"from {module} import {', '.join(sorted(names, key=_member_order))}")
    text: list[str] = []
    for _, lines in sorted(sections.items()):
        text += [*([""] if text else []), *lines]
    return text


def _section(module: str) -> int:
    """Standard library, third party, this package."""
    if module.startswith("."):
        return 2
    return 1 if module.split(".")[0] in ("torch", "triton") else 0


def _member_order(name: str) -> tuple[int, list[str | int]]:
    kind = 0 if name.isupper() and len(name) > 1 else 1 if name[:1].isupper() else 2
    return kind, _natural(name)


def _natural(name: str) -> list[str | int]:
    """The order of isort: numbers in names by their value, `n5` before `n16`."""
    return [int(part) if part.isdigit() else part for part in re.split(r"([0-9]+)", name)]


def siblings(source: str) -> set[str]:
    """File names of the sibling modules that a file imports, at any depth of the file."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            names = [node.module] if node.module else [alias.name for alias in node.names]
            found |= {f"{name}.py" for name in names}
    return found
