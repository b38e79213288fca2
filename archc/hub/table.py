"""Aligned tables in the text of a family's file: a row a line, columns two or more spaces apart."""

from __future__ import annotations

import re
from collections.abc import Iterator


def rows(text: str, columns: int) -> Iterator[tuple[str, ...]]:
    """The rows of a table, each filled up to `columns` with empty strings. ValueError if one has more."""
    for line in text.splitlines():
        if line.strip():
            cells = re.split(r" {2,}", line.strip())
            if len(cells) > columns:
                raise ValueError(f"a row of {len(cells)} columns in a table of {columns}: {line.strip()}")
            yield (*cells, *[""] * (columns - len(cells)))


def pairs(text: str) -> tuple[tuple[str, str], ...]:
    """A table of two columns."""
    return tuple((left, right) for left, right in rows(text, 2))


def under(ours: str, theirs: str, text: str) -> str:
    """The rows of a table of tensors with something before both names."""
    return "\n".join(f"{ours}{row[0]}  {theirs}{row[1]}  {row[2]}" for row in rows(text, 3)) + "\n"
