"""From the syntax tree to the graph: names, defaults, repeats and suffixes get their meaning; all errors at once."""

from __future__ import annotations

from archc.diagnostics import Diagnostic, DiagnosticError, Label, Span, error
from archc.elaborate.assemble import EMBED, LayerPlan, build_epilogue, build_prologue, d_model_axis
from archc.elaborate.draft import Draft
from archc.elaborate.findings import Findings
from archc.elaborate.macros import Macros
from archc.elaborate.names import check_model
from archc.elaborate.reader import SettingsReader
from archc.elaborate.resolve import Resolver
from archc.elaborate.reuse import check_keys, hand_on_keys
from archc.elaborate.settings import ModelSettings
from archc.elaborate.stack import CopyCounter, Counter, Phases, StackBuilder, roll
from archc.grammar.tree import Block, Let, Model, Name, Setting, Share, Spec, Word
from archc.ir.graph import Graph, Layer, Settings, Stack, counts
from archc.ir.values import constant_axis
from archc.layers.kind import Kind, fields_of
from archc.ops.attention_kv import KV


class Elaborator:
    """One run over one spec. `overrides` are settings from elsewhere (`--set`), which win."""

    def __init__(self, spec: Spec, overrides: tuple[Setting, ...] = ()) -> None:
        self.spec = spec
        self.report = Findings(spec.source)
        self.end = Span(spec.source, len(spec.source.text.rstrip()), len(spec.source.text.rstrip()))
        self.macros = Macros(s for s in spec.statements if isinstance(s, Let | Share))
        settings = [s for s in spec.statements if isinstance(s, Setting)]
        self.reader = SettingsReader([*settings, *overrides], self.end, self.report, self.macros.expand)

    def run(self) -> Graph:
        """The graph. Raises DiagnosticError with every finding."""
        self._models()
        self._names()
        settings = self.reader.read()
        for problem in settings.problems() if settings else ():
            at, *others = (self.reader.span_of(path) for path in problem.fields)
            labels = [Label(span) for span in others if span is not None]
            self.report.add(error(problem.code, problem.message, at or self.end, "", *labels, help=problem.help))
        shares = self.macros.shares.values()
        reads_embedding = any(share.fields.reads_embedding for share in shares)
        resolver = Resolver(self.macros, self.reader, settings, None, self.report, reads_embedding)
        resolver.mlp = self._mlp(resolver)
        self.report.add(*self.macros.check(self.reader.env))
        stack = self._stack(resolver)
        if not self.report.errors:
            self._all_copies_used(stack)
        self.report.raise_if_errors()
        assert settings is not None
        self.report.add(*check_keys(stack, settings.d_model, plan_of, resolver.span_of))
        self.report.raise_if_errors()
        return self._graph(settings, roll(stack), reads_embedding)

    def _graph(self, settings: ModelSettings, stack: tuple[Stack, ...], reads_embedding: bool) -> Graph:
        d_model, vocab = d_model_axis(settings), constant_axis("vocab", settings.vocab)
        stack, hands_keys = hand_on_keys(stack, d_model, plan_of)
        adds = sum(times * len(plan_of(layer).sublayers) for layer, times in counts(stack).items())
        return Graph(
            Settings(
                name=next((s.ident.name for s in self.spec.statements if isinstance(s, Model)), "model"),
                vocab=vocab,
                d_model=d_model,
                context=settings.context,
                tied=settings.is_tied,
                residual_fp32=settings.residual.dtype == "fp32",
                n_residual_adds=adds,
                prefix=settings.prefix or 0,
                identity=settings,
            ),
            build_prologue(settings, vocab, d_model),
            stack,
            build_epilogue(settings, vocab, d_model),
            self._defaults(settings),
            (KV,) if hands_keys else (),
            (EMBED,) if reads_embedding else (),
        )

    def _defaults(self, settings: ModelSettings) -> tuple[str, ...]:
        """Defaults in force that a reader of the report should know of."""
        said = self.reader.statements
        shown = []
        if "norm" not in said:
            shown.append(f"norm {settings.norm.keyword}(eps={float(settings.norm.eps):g})")
        if not settings.is_tied and "tied" not in said:
            shown.append("untied head")
        return tuple(shown)

    # --- statements --------------------------------------------------------------------------------

    def _models(self) -> None:
        models = [statement for statement in self.spec.statements if isinstance(statement, Model)]
        for extra in models[1:]:
            message = "a spec describes one model, and this names another"
            first = Label(models[0].ident.span, "the first")
            hint = "put the other model into a file of its own"
            self.report.add(error("set-twice", message, extra.ident.span, "", first, help=hint))
        finding = check_model(models[0].ident) if models else None
        if finding is not None:
            self.report.add(finding)

    def _names(self) -> None:
        reserved = {*fields_of(ModelSettings), *(f for kind in Kind.known.values() for f in fields_of(kind))}
        reserved -= {*Kind.known}
        for statement in self.macros.statements:
            try:
                self.macros.define(statement, self.reader.env, reserved)
            except DiagnosticError as failure:
                self.report.add(*failure.diagnostics)

    def _mlp(self, resolver: Resolver) -> Draft | None:
        """The channel mixer that layers get by default, if it could be read."""
        statement = self.reader.statements.get("mlp")
        if statement is None or not isinstance(statement.value, Name) or not self.reader.is_sure_of("mlp"):
            return None
        word = Word(ident=statement.ident, value=statement.value, span=statement.span)
        return resolver.mixer_of_value(statement.value, word)

    def _stack(self, resolver: Resolver) -> tuple[Stack, ...]:
        """The layers of all blocks."""
        blocks = [statement for statement in self.spec.statements if isinstance(statement, Block)]
        if not blocks:
            message = "a spec needs at least one `block`"
            self.report.add(error("missing-block", message, self.end, help="add for example\nblock x4 < mamba >"))
        shares = self.macros.shares.values()
        counters: list[Counter] = [CopyCounter(share.name, share.copies) for share in shares]
        phases: Phases = tuple(0 for _ in shares)
        builder = StackBuilder(self.macros, self.reader.env, resolver.resolve, self.report)
        stack: tuple[Stack, ...] = ()
        for block in blocks:
            try:
                elements, phases = builder.block(block, counters, phases)
                stack += elements
            except DiagnosticError as failure:
                self.report.add(*failure.diagnostics)
                return stack
        if self.reader.is_sure_of("mlp"):
            builder.finish()
        return stack

    def _all_copies_used(self, stack: tuple[Stack, ...]) -> None:
        sublayers = [sublayer for layer in counts(stack) for sublayer in plan_of(layer).sublayers]
        used = {(s.share.name, s.share.copy) for s in sublayers if s.share is not None}
        for name, share in self.macros.shares.items():
            copies = sum(used_name == name for used_name, _ in used)
            if copies == share.copies:
                continue
            statement = next(s for s in self.macros.statements if s.ident.name == name)
            at = statement.repeat.span if isinstance(statement, Share) and statement.repeat else statement.ident.span
            if copies:
                message = f"`{name}` has {share.copies:,} copies, and the stack uses {copies} of them"
                hint = "use it more often, or " + (f"write x{copies}" if copies > 1 else f"remove the x{share.copies}")
            else:
                message = f"`{name}` is defined, and no layer uses it"
                at, hint = statement.ident.span, f"use it as a layer, or feed it: mamba2 <- {name}"
            self.report.add(error("unused-copies", message, at, help=hint))


def plan_of(layer: Layer) -> LayerPlan:
    assert isinstance(layer.identity, LayerPlan)
    return layer.identity


def elaborate(spec: Spec, overrides: tuple[Setting, ...] = ()) -> tuple[Graph, list[Diagnostic]]:
    """The graph of a spec, and warnings. Raises DiagnosticError with every error of the spec."""
    elaborator = Elaborator(spec, overrides)
    graph = elaborator.run()
    return graph, list(elaborator.report)
