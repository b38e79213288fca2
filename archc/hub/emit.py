"""The text of a generated package's hub.py: its checkpoint family's names and configuration."""

from __future__ import annotations

import json
from collections.abc import Iterator

from archc.hub.match import Match

_HEADER = '"""{doc}"""\n\nfrom __future__ import annotations\n\n'
_ROWS_ARE = """\
# Our tensor, theirs. `*` is a layer's index; a last `[*]` is the expert's index in a stacked tensor of ours.
# A second row for a tensor of ours is another name that it may have in a file.
"""


def module_text(match: Match | None) -> str:
    """A typed module in ruff's format; FAMILY is None where no family computes what the model computes."""
    if match is None:
        return (
            _HEADER.format(doc="The Hugging Face names of this model: no family computes what it computes.")
            + "FAMILY: str | None = None\n\nCONFIG: dict[str, object] = {}\n\nROWS: tuple[tuple[str, str], ...] = ()\n"
        )
    doc = f"The Hugging Face names of this model: it is a {match.family.title} ({match.family.source})."
    lines = [
        _HEADER.format(doc=doc) + f"FAMILY: str | None = {_literal(match.family.name)}",
        "",
        "CONFIG: dict[str, object] = {",
        *(f"    {_literal(key)}: {_literal(value)}," for key, value in sorted(match.config.items())),
        "}",
        "",
        _ROWS_ARE + "ROWS: tuple[tuple[str, str], ...] = (",
        *_rows(match),
        ")",
    ]
    return "\n".join(lines) + "\n"


def _rows(match: Match) -> Iterator[str]:
    for ours, theirs in match.rows:
        yield f"    ({_literal(ours)}, {_literal(theirs)}),"


def _literal(value: object) -> str:
    """Python for a JSON value. Strings are quoted as ruff does; no value here is longer than a line."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return "[" + ", ".join(map(_literal, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_literal(key)}: {_literal(inner)}" for key, inner in value.items()) + "}"
    return repr(value)
