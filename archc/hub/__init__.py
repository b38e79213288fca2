"""Checkpoint families: our tensors and fields beside theirs, in aligned tables that are read in both directions.

`match(graph)` finds the family by structure, `config(graph)` is its config.json, `hub_py(graph)` the emitted table.
"""

from __future__ import annotations

from archc.hub import emit
from archc.hub.family import Family
from archc.hub.jamba import JAMBA
from archc.hub.llama import LLAMA
from archc.hub.mamba import MAMBA
from archc.hub.match import Match, best
from archc.hub.mistral import MISTRAL
from archc.hub.mixtral import MIXTRAL
from archc.ir.graph import Graph

# The most specific first: every Llama without biases is a Mistral without a window.
FAMILIES: tuple[Family, ...] = (MAMBA, JAMBA, MIXTRAL, LLAMA, MISTRAL)

__all__ = ["FAMILIES", "Family", "Match", "config", "hub_py", "match"]


def match(graph: Graph) -> Match | None:
    """The family that computes what `graph` computes and has a name for each of its tensors, if there is one."""
    return best(graph, FAMILIES)


def config(graph: Graph) -> dict[str, object] | None:
    """The config.json of `graph` in its family, or None."""
    found = match(graph)
    return dict(found.config) if found else None


def hub_py(graph: Graph) -> str:
    """The text of a generated package's hub.py."""
    return emit.module_text(match(graph))
