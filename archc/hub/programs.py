"""Whose configurations are read and written: transformers', state-spaces/mamba's, Samba's and Megatron's.

spec_of(source)             the spec that a file of one of them means
configuration(graph, to)    the file of a graph; `to` is one of FORMATS
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from archc import hub
from archc.diagnostics import Diagnostic, DiagnosticError, Source
from archc.hub import mamba_ssm, megatron_arguments, samba, write
from archc.hub.family import Family
from archc.hub.match import best, nearest
from archc.hub.megatron import MEGATRON
from archc.hub.read import UnsupportedConfig, facts_from
from archc.hub.sources import json_object, refused
from archc.ir.graph import Graph


@dataclass(frozen=True)
class Program:
    """A program whose configurations are known; `text` makes a file of one."""

    title: str
    families: tuple[Family, ...]
    text: Callable[[Mapping[str, object]], str]


def _json(config: Mapping[str, object]) -> str:
    return json.dumps(config, indent=2) + "\n"


PROGRAMS = {
    "hf-config": Program("the families that transformers has a class for", hub.FAMILIES, _json),
    "megatron": Program("the hybrid models of Megatron", (MEGATRON,), megatron_arguments.text_of),
    "mamba-ssm": Program("the models of state-spaces/mamba", tuple(mamba_ssm.FAMILIES.values()), _json),
    "samba": Program("the models of Samba's program", (samba.SAMBA,), _json),
}
FORMATS = tuple(PROGRAMS)


def spec_of(source: Source, name: str | None = None) -> str:
    """The canonical spec, under the family's name unless given. Raises DiagnosticError."""
    try:
        family, config = _read(source)
        family, facts = facts_from({**config, "model_type": family.name} if family else config, _known(family))
        return write.spec_text(family, facts, write.spec_name(name or family.name))
    except UnsupportedConfig as failure:
        raise refused(source, failure) from None


def configuration(graph: Graph, to: str, family: str | None = None) -> str:
    """The text of the configuration, in a `family` of the program. Raises DiagnosticError if no one says all of it."""
    program = PROGRAMS[to]
    families = tuple(known for known in program.families if family in (None, known.name))
    if not families:
        names = ", ".join(known.name for known in program.families)
        message = f"there is no family {family!r} for {to}; there are {names}"
        raise DiagnosticError(Diagnostic("unsupported-model", message))
    found = best(graph, families)
    if found is None:
        names = f": {', '.join(known.title for known in families)}" if len(families) > 1 else ""
        message = f"{graph.settings.name} is none of {program.title}{names}"
        close, problems = nearest(graph, families)
        said = "\n".join(f"{field}: {why}" for field, why in problems)
        near = f"; it is nearest to {close.title}" if close and len(families) > 1 else ""
        raise DiagnosticError(Diagnostic("unsupported-model", message + near, help=said))
    return program.text(found.config)


def _known(family: Family | None) -> tuple[Family, ...]:
    return hub.FAMILIES if family is None else (family,)


def _read(source: Source) -> tuple[Family | None, Mapping[str, object]]:
    """The keys that a file says, and the family whose they are unless one of transformers'."""
    if source.text.lstrip().startswith("--"):
        return MEGATRON, megatron_arguments.config_of(source.text)
    config = json_object(source)
    if "model_type" not in config and config.keys() & {"n_embd", "mb_per_layer"}:
        return samba.SAMBA, samba.config_of(config)
    if "model_type" not in config and config.keys() & {"d_model", "ssm_cfg"}:
        return mamba_ssm.config_of(config)
    return None, config
