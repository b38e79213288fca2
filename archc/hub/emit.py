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
# Keys that a config.json may say in other words: the names and shapes of its tensors show what they mean.
"""
_ALIKE_IS = """\
# Other families with the same names and the same function, and the keys that say it there.
"""


def module_text(match: Match | None) -> str:
    """A typed module in ruff's format; FAMILY is None where no family computes what the model computes."""
    if match is None:
        return (
            _HEADER.format(doc="The Hugging Face names of this model: no family computes what it computes.")
            + "FAMILY: str | None = None\n\nCONFIG: dict[str, object] = {}\n\nREPHRASED: tuple[str, ...] = ()\n\n"
            + "ALIKE: dict[str, dict[str, object]] = {}\n\nROWS: tuple[tuple[str, str], ...] = ()\n"
        )
    doc = f"The Hugging Face names of this model: it is a {match.family.title} ({match.family.source})."
    lines = [
        _HEADER.format(doc=doc) + f"FAMILY: str | None = {_literal(match.family.name)}",
        "",
        "CONFIG: dict[str, object] = {",
        *(f"    {_literal(key)}: {_literal(value)}," for key, value in sorted(match.config.items())),
        "}",
        "",
        *_list(_REPHRASED_IS + "REPHRASED: tuple[str, ...] = ", "()", [_literal(key) for key in match.rephrased]),
        "",
        *_list(
            _ALIKE_IS + "ALIKE: dict[str, dict[str, object]] = ",
            "{}",
            [f"{_literal(name)}: {_literal(dict(sorted(keys.items())))}" for name, keys in sorted(match.alike.items())],
        ),
        "",
        _ROWS_ARE + "ROWS: tuple[tuple[str, str], ...] = (",
        *_rows(match),
        ")",
    ]
    return "\n".join(lines) + "\n"


def _list(start: str, brackets: str, elements: list[str]) -> list[str]:
    """An assignment with a line for each element."""
    opening, closing = brackets
    if not elements:
        return [start + brackets]
    return [start + opening, *(f"    {element}," for element in elements), closing]


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
