"""Whose configurations are read and written: transformers'.

spec_of(source)             the spec that a file of one of them means
configuration(graph, to)    the file of a graph; `to` is one of FORMATS
"""

from __future__ import annotations

import json

from archc import hub
from archc.diagnostics import Diagnostic, DiagnosticError, Source
from archc.hub.sources import config_of, refused
from archc.ir.graph import Graph

FORMATS = ("hf-config",)


def spec_of(source: Source, name: str | None = None) -> str:
    """The canonical spec, under the family's name unless given. Raises DiagnosticError."""
    config = config_of(source)
    try:
        return hub.spec_text(config, name)
    except hub.UnsupportedConfig as failure:
        raise refused(source, failure) from None


def configuration(graph: Graph, to: str) -> str:
    """The text of the configuration. Raises DiagnosticError if it cannot say all that the graph says."""
    assert to in FORMATS, to
    try:
        return json.dumps(hub.export_config(graph), indent=2, sort_keys=True) + "\n"
    except hub.UnsupportedModel as failure:
        problems = "\n".join(f"{field}: {why}" for field, why in failure.problems)
        raise DiagnosticError(Diagnostic("unsupported-model", failure.message, help=problems)) from None
