"""The text of a generated package's hub.py: names and configurations of the families that its model belongs to."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from archc.hub.family import CONFIG_FILE, WEIGHTS
from archc.hub.match import Match

_HEADER = '''"""What other programs call this model{doc}"""

from __future__ import annotations

from .hf_family import Family
'''
_ROWS_ARE = """\
# Our tensor, theirs. `*` is a layer's index; a last `[*]` is the expert's index in a stacked tensor of ours.
# A second row for a tensor of ours is another name that it may have in a file. hf_names.py explains the rest.
"""
WIDTH = 120


def module_text(match: Match | None) -> str:
    """A typed module in ruff's format; FAMILIES is empty where no family computes what the model computes."""
    if match is None:
        doc = ": no family computes what it computes."
        return _HEADER.format(doc=doc) + "\nFAMILIES: tuple[Family, ...] = ()\n"
    matches = (match, *match.others)
    named = [f"It is a {one.family.title} ({one.family.source}).\n" for one in matches]
    tables: dict[tuple[tuple[str, str], ...], str] = {}
    for one in matches:
        tables.setdefault(one.rows, f"{one.family.name.upper()}_ROWS")
    lines = [_HEADER.format(doc=".\n\n" + "".join(named)), _ROWS_ARE.rstrip()]
    for rows, name in tables.items():
        lines += [f"{name}: tuple[tuple[str, str], ...] = (", *(line for row in rows for line in _row(row)), ")"]
    lines += ["", "FAMILIES: tuple[Family, ...] = ("]
    for one in matches:
        lines += ["    Family(", *(f"        {line}" for line in _fields(one, tables[one.rows])), "    ),"]
    return "\n".join([*lines, ")"]) + "\n"


def _fields(match: Match, rows: str) -> Iterator[str]:
    """The arguments of a Family that are not its defaults."""
    yield f"name={_literal(match.family.name)},"
    yield "config={"
    for key, value in sorted(match.config.items()):
        yield from _lines(f"    {_literal(key)}: ", value)
    yield "},"
    yield f"rows={rows},"
    if match.rephrased:
        yield from _lines("rephrased=", match.rephrased)
    if match.uses:
        yield from _lines("uses=", match.uses)
    if match.family.config_file != CONFIG_FILE:
        yield f"config_file={_literal(match.family.config_file)},"
    if match.family.weights != WEIGHTS:
        yield f"weights={_literal(match.family.weights)},"


def _row(row: tuple[str, str]) -> Iterator[str]:
    line = f"    {_literal(row)},"
    yield from [line] if len(line) <= WIDTH else ["    (", *(f"        {_literal(name)}," for name in row), "    ),"]


def _lines(start: str, value: object) -> Iterator[str]:
    """`start value,` on a line, or an item a line if that is too long."""
    line = f"{start}{_literal(value)},"
    if not isinstance(value, list | tuple | Mapping) or len(line) <= WIDTH - 12:
        yield line
        return
    left, right = "[]" if isinstance(value, list) else "()" if isinstance(value, tuple) else "{}"
    items = map(_literal, value)
    if isinstance(value, Mapping):
        items = map("{}: {}".format, items, map(_literal, value.values()))
    indent = " " * (len(start) - len(start.lstrip()))
    yield f"{start}{left}"
    yield from (f"{indent}    {item}," for item in items)
    yield f"{indent}{right},"


def _literal(value: object) -> str:
    """Python for a JSON value, strings quoted as ruff does."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return "[" + ", ".join(map(_literal, value)) + "]"
    if isinstance(value, tuple):
        return "(" + ", ".join(map(_literal, value)) + ("," * (len(value) == 1)) + ")"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_literal(key)}: {_literal(inner)}" for key, inner in value.items()) + "}"
    return repr(value)
