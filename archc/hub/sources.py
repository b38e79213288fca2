"""The file that a model is imported from, and what is wrong with it as diagnostics that point into it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from archc.diagnostics import Diagnostic, DiagnosticError, Source, Span, error
from archc.hub.read import UnsupportedConfig


def json_object(source: Source) -> dict[str, object]:
    """The JSON object that a file holds. Raises DiagnosticError."""
    try:
        content = json.loads(source.text, object_pairs_hook=_once)
    except json.JSONDecodeError as wrong:
        raise DiagnosticError(_not_json(source, wrong.pos, f"{wrong.msg[:1].lower()}{wrong.msg[1:]}")) from None
    except RecursionError:
        raise DiagnosticError(_not_json(source, 0, "nested too deeply")) from None
    except _Twice as wrong:
        message = f"`{wrong.key}` is said twice, and which one holds is nowhere said"
        spans = [found.span() for found in re.finditer(_key(wrong.key), source.text)]
        raise DiagnosticError(error("unsupported-config", message, Span(source, *spans[-1]))) from None
    if not isinstance(content, dict):
        raise DiagnosticError(_not_json(source, 0, "not an object"))
    return content


def refused(source: Source, failure: UnsupportedConfig) -> DiagnosticError:
    """A finding for every key that keeps the configuration out, at the key where it stands."""
    return DiagnosticError(*(_finding(source, key, why) for key, why in failure.problems))


def _finding(source: Source, key: str, why: str) -> Diagnostic:
    return error("unsupported-config", f"`{key}`: {why}", Span(source, *_place(source.text, key.split("."))))


def _place(text: str, path: Iterable[str]) -> tuple[int, int]:
    """Where the last key of `path` stands, each looked for behind the one before; the beginning if it does not."""
    start, end = 0, 0
    for key in path:
        found = re.compile(_key(key)).search(text, end)
        if found is None:
            break
        start, end = found.span("key")
    return start, end


def _key(name: str) -> str:
    """A key of JSON, or an argument of a command line."""
    name = re.escape(name)
    return rf'(?P<key>"{name}"(?=\s*:)|(?<!\S)(?:--)?{name}(?=[\s=]|$))'


class _Twice(ValueError):  # noqa: N818 (not for callers)
    def __init__(self, key: str) -> None:
        self.key = key


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _Twice(next(name for name in names if names.count(name) > 1))
    return found


def _not_json(source: Source, offset: int, why: str) -> Diagnostic:
    return error("not-json", f"The file is no configuration: {why}.", Span(source, offset, offset))
