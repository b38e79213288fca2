"""Checkpoint families: our tensors and fields beside theirs, in aligned tables that are read in both directions.

match(graph)           the family that computes what a graph computes, by structure
config(graph)          its config.json; export_config(graph) is the same and raises where there is none
spec_text(config)      the short spec that a config.json means; import_config(text) reads the file's text
hub_py(graph)          the tables that a generated package converts checkpoints by

`programs.py` does the same with files, and with the words of programs beside transformers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from archc.hub import emit, write
from archc.hub.family import Family
from archc.hub.jamba import JAMBA
from archc.hub.llama import LLAMA
from archc.hub.mamba import MAMBA
from archc.hub.mamba2 import MAMBA2
from archc.hub.mamba_ssm import FAMILIES as MAMBA_SSM
from archc.hub.match import Match, best, nearest
from archc.hub.mistral import MISTRAL
from archc.hub.mixtral import MIXTRAL
from archc.hub.nemotron_h import NEMOTRON_H
from archc.hub.phi3 import PHI3
from archc.hub.read import UnsupportedConfig, facts_from
from archc.hub.samba import SAMBA
from archc.hub.zamba import ZAMBA
from archc.hub.zamba2 import ZAMBA2
from archc.ir.graph import Graph

# The most specific first: every Llama without biases is a Mistral without a window.
FAMILIES: tuple[Family, ...] = (MAMBA, MAMBA2, JAMBA, ZAMBA, ZAMBA2, NEMOTRON_H, MIXTRAL, LLAMA, MISTRAL, PHI3)
# Those whose files have the names of the program that made them.
NATIVE: tuple[Family, ...] = (*MAMBA_SSM.values(), SAMBA)

__all__ = [
    "FAMILIES",
    "NATIVE",
    "Family",
    "Match",
    "UnsupportedConfig",
    "UnsupportedModel",
    "config",
    "export_config",
    "hub_py",
    "import_config",
    "match",
    "spec_text",
]


class UnsupportedModel(ValueError):  # noqa: N818 (what it says of the model; the caller shows it)
    """A model that no config.json says. `problems` are (our field, why), as far as the nearest family goes."""

    def __init__(self, message: str, problems: tuple[tuple[str, str], ...]) -> None:
        super().__init__("\n".join([message, *(f"{field}: {why}" for field, why in problems)]))
        self.message = message
        self.problems = problems


def match(graph: Graph) -> Match | None:
    """The family that computes what `graph` computes and has a name for each of its tensors, if there is one."""
    return best(graph, (*FAMILIES, *NATIVE))


def config(graph: Graph, name: str | None = None) -> dict[str, object] | None:
    """The config.json of `graph` in its family of transformers, or in the one of that name; or None."""
    found = best(graph, tuple(family for family in FAMILIES if name in (None, family.name)))
    return dict(found.config) if found else None


def hub_py(graph: Graph) -> str:
    """The text of a generated package's hub.py."""
    return emit.module_text(match(graph))


def spec_text(config: Mapping[str, object], name: str | None = None) -> str:
    """The canonical spec of a config.json, under the family's name unless given. Raises UnsupportedConfig."""
    family, facts = facts_from(config, FAMILIES)
    return write.spec_text(family, facts, write.spec_name(name or family.name))


def import_config(text: str, name: str | None = None) -> str:
    """The same from the text of a config.json. Raises UnsupportedConfig, which is a ValueError."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as failure:
        raise UnsupportedConfig(("config.json", f"not JSON: {failure}")) from None
    if not isinstance(content, dict):
        raise UnsupportedConfig(("config.json", "not a JSON object"))
    return spec_text(content, name)


def export_config(graph: Graph, name: str | None = None) -> dict[str, object]:
    """The same. Raises UnsupportedModel, which is a ValueError, if no family computes the same."""
    found = config(graph, name)
    if found is None:
        names = ", ".join(family.title for family in FAMILIES)
        message = f"{graph.settings.name} is none of the families that transformers has a class for: {names}"
        family, problems = nearest(graph, FAMILIES)
        raise UnsupportedModel(message + (f"; it is nearest to {family.title}" if family else ""), problems)
    return found
