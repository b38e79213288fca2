"""A spec as text, without the model that it means: read from bytes, and written in its one canonical form."""

from __future__ import annotations

from archc.diagnostics import Source
from archc.grammar.parse import parse
from archc.grammar.sources import check_formatted, decode


def source(name: str, data: bytes) -> Source:
    """The spec in the bytes of a file, shown as `name`."""
    return decode(name, data)


def formatted(source: Source) -> str:
    """The spec in its one canonical form."""
    from archc.grammar.format import format_spec  # not every command prints specs

    text = format_spec(parse(source))
    check_formatted(source, text)
    return text
