"""The whole journey on one screen: parse, elaborate, verify, analyse, lower, emit.

Nothing here prints, exits or writes: `archc.cli` does. Every problem of a spec is a DiagnosticError with all findings.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

from archc.diagnostics import Diagnostic, DiagnosticError, Source, Span, error
from archc.elaborate.elaborate import elaborate
from archc.grammar.parse import parse
from archc.grammar.tree import Setting, Spec
from archc.ir.graph import Graph, counts
from archc.ir.text import graph_text
from archc.ir.verify import verify
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

ASSIGNMENT = re.compile(r"\s*[A-Za-z_][A-Za-z0-9_]*\s*(?P<sign>=)")


@dataclass(frozen=True, eq=False)
class Model:
    """A spec that holds: its syntax, its graph as elaborated, and what there is to warn of."""

    spec: Spec
    overrides: tuple[Setting, ...]
    graph: Graph
    warnings: tuple[Diagnostic, ...]

    @property
    def n_layers(self) -> int:
        return sum(counts(self.graph.stack).values())

    @cached_property
    def lowered(self) -> Graph:
        """The graph as the package is built from it."""
        return lower(self.graph)

    @property
    def spec_text(self) -> str:
        """The spec with its overrides written in, which is what the model means."""
        text, missing = self.spec.source.text, []
        replaced: list[tuple[int, int, str]] = []
        for name, override in {setting.ident.name: setting for setting in self.overrides}.items():
            said = [s for s in self.spec.statements if isinstance(s, Setting) and s.ident.name == name]
            replaced += [(setting.span.start, setting.span.end, override.span.text) for setting in said]
            missing += [] if said else [override.span.text]
        for start, end, written in sorted(replaced, reverse=True):
            text = text[:start] + written + text[end:]
        if not text.endswith("\n"):
            text += "\n"
        return text + "".join(f"{statement}\n" for statement in missing)


def load(source: Source, overrides: Sequence[str] = ()) -> Model:
    """Parse, elaborate and verify a spec. `overrides` are settings from elsewhere, `name=value` each, which win."""
    settings = tuple(setting(text) for text in overrides)
    spec = parse(source)
    graph, warnings = elaborate(spec, settings)
    return Model(spec, settings, verify(graph, "elaborate"), tuple(warnings))


def setting(text: str) -> Setting:
    """`d_model=4096` as the statement `d_model 4096`, which has the same length and so the same columns."""
    assigned = ASSIGNMENT.match(text)
    if assigned:
        text = text[: assigned.start("sign")] + " " + text[assigned.end("sign") :]
    found = Source("--set", text)
    statements = parse(found).statements
    if len(statements) != 1 or not isinstance(statements[0], Setting):
        wrong = next((said.span for said in statements if not isinstance(said, Setting)), None)
        span = wrong or (statements[1].span if len(statements) > 1 else Span(found, 0, len(text)))
        message = "--set takes one setting" if statements else "--set without a setting"
        hint = "write --set name=value, as --set d_model=4096"
        raise DiagnosticError(error("not-a-setting", message, span, help=hint))
    return statements[0]


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
