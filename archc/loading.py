"""A spec to the model that it means: parsed, elaborated, verified. All findings come in one DiagnosticError."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from archc.diagnostics import Diagnostic, DiagnosticError, Source, Span, error
from archc.elaborate.elaborate import elaborate
from archc.grammar.parse import parse
from archc.grammar.tree import Setting, Spec
from archc.ir.graph import Graph, counts
from archc.ir.verify import verify

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
        from archc.passes.pipeline import lower  # who only checks a spec does without

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
