"""Specs shrink to tiny ones of the same structure, which are specs like any other."""

from pathlib import Path

import pytest

from archc import compiler
from archc.diagnostics import Source
from archc.ir.graph import Graph, counts
from archc.passes.grouping import sublayers
from archc.passes.params import params
from archc.passes.workload import Workload

from .cases import SHRUNK, SPECS
from .shrink import shrink

LARGEST = 200_000  # parameters of a tiny model


def kinds(graph: Graph) -> set[tuple[str, ...]]:
    """The kinds of each layer, with the fields that are no sizes."""
    return {
        tuple(f"{scope.class_name} {switches(scope.identity)}" for scope in sublayers(layer))
        for layer in counts(graph.stack)
    }


def switches(kind: object) -> str:
    said = vars(kind) if hasattr(kind, "__dict__") else {}
    return str({name: type(value).__name__ for name, value in said.items()})


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_every_spec_shrinks(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    full = compiler.load(Source(path.stem, text)).graph
    tiny = compiler.load(Source(path.stem, shrink(text, path.stem))).graph
    assert kinds(tiny) == kinds(full)
    assert params(tiny, Workload(context=1)).total < min(LARGEST, params(full, Workload(context=1)).total)
    assert tiny.settings.tied == full.settings.tied
    assert tiny.settings.residual_fp32 == full.settings.residual_fp32


def test_shrinking_twice_changes_nothing() -> None:
    for name, text in SHRUNK.items():
        assert shrink(text, name) == text
