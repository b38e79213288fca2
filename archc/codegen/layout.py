"""Lines of Python as `ruff format` would leave them, so that emitted files are canonical without a formatter."""

from __future__ import annotations

import ast

WIDTH = 120


def statement(code: str, indent: int, comment: str = "") -> str:
    """One statement at `indent` columns, its comment behind it where that fits and above it where not."""
    pad = " " * indent
    line = pad + code + (f"  # {comment}" if comment else "")
    if len(line) <= WIDTH:
        return line
    above = f"{pad}# {comment}\n" if comment else ""
    if indent + len(code) <= WIDTH:
        return f"{above}{pad}{code}"
    return above + _broken(code, indent)


def _broken(code: str, indent: int) -> str:
    """The arguments of the last call on lines of their own: all on one if they fit, else one each."""
    opening = _opening(code)
    head, inside, tail = code[: opening + 1], code[opening + 1 : -1], code[-1]
    pad, deeper = " " * indent, " " * (indent + 4)
    is_call_or_index = head[-2:-1].isidentifier() or head[-2:-1] in ")]"
    if len(deeper + inside) <= WIDTH and is_call_or_index:
        return f"{pad}{head}\n{deeper}{inside}\n{pad}{tail}"
    arguments = (_argument(argument, indent + 4) for argument in split_arguments(inside))
    return f"{pad}{head}\n{''.join(arguments)}{pad}{tail}"


def _argument(code: str, indent: int) -> str:
    line = " " * indent + code + ","
    return (line if len(line) <= WIDTH else _broken(code, indent) + ",") + "\n"


def definition(name: str, parameters: list[str], result: str, indent: int) -> str:
    """The first line or lines of a `def`."""
    pad, deeper = " " * indent, " " * (indent + 4)
    inside = ", ".join(parameters)
    line = f"{pad}def {name}({inside}) -> {result}:"
    if len(line) <= WIDTH:
        return line
    if len(deeper + inside) <= WIDTH:
        return f"{pad}def {name}(\n{deeper}{inside}\n{pad}) -> {result}:"
    each = "".join(f"{deeper}{parameter},\n" for parameter in parameters)
    return f"{pad}def {name}(\n{each}{pad}) -> {result}:"


def _opening(code: str) -> int:
    """Where the bracket that closes at the end of `code` opens."""
    depth = 0
    for i in range(len(code) - 1, -1, -1):
        depth += (code[i] in ")]}") - (code[i] in "([{")
        if depth == 0:
            return i
    raise ValueError(f"not a call: {code}")


def split_arguments(text: str) -> list[str]:
    """`a, f(b, c), d` at its top-level commas."""
    depth, start, parts = 0, 0, []
    for i, char in enumerate(text):
        depth += (char in "([{") - (char in ")]}")
        if char == "," and depth == 0:
            parts.append(text[start:i].strip())
            start = i + 1
    return [*parts, text[start:].strip()]


def is_call(code: str) -> bool:
    """Whether an expression can stand inside another without parentheses."""
    return isinstance(ast.parse(code, mode="eval").body, ast.Call | ast.Name | ast.Attribute)
