"""The whole journey on one screen: parse, elaborate, verify, analyse, lower, emit.

Nothing here prints, exits or writes: `archc.cli` does. Every problem of a spec is a DiagnosticError with all findings.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from archc.diagnostics import Source
from archc.ir.graph import Graph
from archc.ir.text import graph_text
from archc.loading import Model as Model
from archc.loading import load as load
from archc.loading import setting as setting
from archc.passes.convention import Convention, training_flops
from archc.passes.flops import flops
from archc.passes.outline import outline
from archc.passes.params import Params, params
from archc.passes.pipeline import PIPELINE, lower
from archc.passes.state import state
from archc.passes.workload import Dtype, Workload
from archc.report.analysis import Analysis
from archc.text import formatted as formatted
from archc.text import source as source


@lru_cache(maxsize=8)
def parameters(model: Model, stored_as: Dtype) -> Params:
    """The parameters of a model whose weights are stored in a dtype: how many tokens there are changes nothing."""
    return params(model.graph, Workload(1, weight_dtype=stored_as))


def analyse(model: Model, workload: Workload, convention: Convention = "archc") -> Analysis:
    """Every table about a model under a workload: model FLOPs of what was said, kernel FLOPs of what would be built."""
    workload = replace(workload, prefix=model.graph.settings.prefix)
    counted, operations = parameters(model, workload.weights), flops(model.graph, workload)
    return Analysis(
        outline=outline(model.graph),
        workload=workload,
        params=counted,
        state=state(model.graph, workload),
        flops=operations,
        convention=convention,
        training_flops=training_flops(convention, model.graph, workload, counted, operations),
        kernel_flops=flops(model.lowered, workload),
    )


def build(model: Model, *, fuse: bool = True, target: str = "sm_90") -> dict[str, str]:
    """The files of the package, by name. Without `fuse` its code follows the spec op by op.

    `target`, one of `targets()`, is the GPU whose tile tables the kernels take; they run on others too.
    """
    from archc.codegen.package import build_package  # jinja2 is for builds alone

    graph = model.lowered if fuse else model.graph
    return build_package(model.graph, graph, model.spec_text, model.graph.settings.name, target)


def targets() -> tuple[str, ...]:
    """The GPU architectures that `build` knows tile tables of, the default first."""
    from archc.codegen.kernels.tiles import TARGETS

    return TARGETS


def pass_names() -> tuple[str, ...]:
    """The passes whose result `ir_after` prints, in order."""
    return ("elaborate", *(step.name for step in PIPELINE))


def ir_after(model: Model, name: str) -> str:
    """The printed IR after the pass `name`."""
    seen: dict[str, Graph] = {}
    lower(model.graph, seen.__setitem__)
    return graph_text(seen[name])


def imported(source: Source, name: str | None = None) -> str:
    """The canonical spec of another program's configuration, under the family's name unless given."""
    from archc.hub.programs import spec_of  # tables of every family, which few commands want

    return spec_of(source, name)


def exported(model: Model, to: str, family: str | None = None) -> str:
    """The configuration of a model in another program's words; `to` is one of `hub.programs.FORMATS`."""
    from archc.hub.programs import configuration

    return configuration(model.graph, to, family)
