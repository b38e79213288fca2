"""The text of a generated package's hub.py: its checkpoint family's names and configuration."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from archc.hub.match import Match

_HEADER = '"""{doc}"""\n\nfrom __future__ import annotations\n\n'
_ROWS_ARE = """\
# Our tensor, theirs. `*` is a layer's index; a last `[*]` is the expert's index in a stacked tensor of ours.
# A second row for a tensor of ours is another name that it may have in a file.
"""
_REPHRASED_IS = """\
# Keys that a config.json may say in other words; the names and shapes of its tensors show what is meant.
"""
_ALIKE_IS = """\
# Other families with the same names and the same function, and the keys that say it there.
"""
_USES_ARE = """\
# (layer, copy) of each use of a shared module, in order.
"""
_NONE = """\
FAMILY: str | None = None

CONFIG: dict[str, object] = {}

REPHRASED: frozenset[str] = frozenset()

ALIKE: dict[str, dict[str, object]] = {}

ROWS: tuple[tuple[str, str], ...] = ()

USES: tuple[tuple[int, int], ...] = ()
"""


def module_text(match: Match | None) -> str:
    """A typed module in ruff's format; FAMILY is None where no family computes what the model computes."""
    if match is None:
        return _HEADER.format(doc="The Hugging Face names of this model: no family computes what it computes.") + _NONE
    doc = f"The Hugging Face names of this model: it is a {match.family.title} ({match.family.source})."
    lines = [
        _HEADER.format(doc=doc) + f"FAMILY: str | None = {_literal(match.family.name)}",
        "",
        "CONFIG: dict[str, object] = {",
        *(f"    {_literal(key)}: {_literal(value)}," for key, value in sorted(match.config.items())),
        "}",
        "",
        *_rephrased(match),
        "",
        *_alike(match),
        "",
        _ROWS_ARE + "ROWS: tuple[tuple[str, str], ...] = (",
        *_rows(match),
        ")",
        "",
        _USES_ARE + f"USES: tuple[tuple[int, int], ...] = {match.uses}",
    ]
    return "\n".join(lines) + "\n"


def _rephrased(match: Match) -> list[str]:
    start = _REPHRASED_IS + "REPHRASED: frozenset[str] = frozenset("
    if not match.rephrased:
        return [start + ")"]
    return [start, "    {", *(f"        {_literal(key)}," for key in match.rephrased), "    }", ")"]


def _alike(match: Match) -> list[str]:
    start = _ALIKE_IS + "ALIKE: dict[str, dict[str, object]] = {"
    if not match.alike:
        return [start + "}"]
    keys = {name: _literal(dict(sorted(said.items()))) for name, said in sorted(match.alike.items())}
    return [start, *(f"    {_literal(name)}: {said}," for name, said in keys.items()), "}"]


def _rows(match: Match) -> Iterator[str]:
    for ours, theirs in match.rows:
        yield f"    ({_literal(ours)}, {_literal(theirs)}),"


def _literal(value: object) -> str:
    """Python for a JSON value. Strings are quoted as ruff does; no value here is longer than a line."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return "[" + ", ".join(map(_literal, value)) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_literal(key)}: {_literal(inner)}" for key, inner in value.items()) + "}"
    return repr(value)
