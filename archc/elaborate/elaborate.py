"""From the syntax tree to the graph: names, defaults, repeats and suffixes get their meaning; all errors at once."""

from __future__ import annotations

from dataclasses import replace

from archc.diagnostics import Diagnostic, DiagnosticError, Report, Span, error
from archc.elaborate.assemble import (
    EMBED,
    LayerPlan,
    SharedUse,
    Sublayer,
    build_epilogue,
    build_layer,
    build_prologue,
    d_model_axis,
)
from archc.elaborate.bind import Environment
from archc.elaborate.draft import (
    Draft,
    DraftLayer,
    DraftSublayer,
    Macros,
    ShareDraft,
    from_value,
    from_word,
    is_channel_mixer,
    map_members,
    members_of,
)
from archc.elaborate.settings import ModelSettings, SettingsReader
from archc.elaborate.stack import CopyCounter, Counter, Phases, StackBuilder, Suffix, roll
from archc.grammar.tree import Block, Let, Model, Name, NoneLiteral, Setting, Share, Spec, Word
from archc.ir.graph import Graph, Layer, Settings, Stack, counts
from archc.ir.values import constant_axis
from archc.layers.kind import Kind, Part, fields_of


class Elaborator:
    """One run over one spec. `overrides` are settings from elsewhere (`--set`), which win."""

    def __init__(self, spec: Spec, overrides: tuple[Setting, ...] = ()) -> None:
        self.spec = spec
        self.report = Report()
        self.end = Span(spec.source, len(spec.source.text.rstrip()), len(spec.source.text.rstrip()))
        self.macros = Macros()
        settings = [s for s in spec.statements if isinstance(s, Setting)]
        self.reader = SettingsReader([*settings, *overrides], self.end, self.report, self.macros.words)
        self.env: Environment = self.reader.env
        self.layers: dict[LayerPlan, Layer] = {}
        self.bound: dict[Draft, Kind] = {}

    def run(self) -> Graph:
        """The graph. Raises DiagnosticError with every finding."""
        self._one_model()
        self._lets()
        self.settings: ModelSettings | None = None
        try:
            self.settings = self.reader.read()
        except DiagnosticError as failure:
            self.report.add(*failure.diagnostics)
        self.mlp = self._mlp_draft()
        blocks = [s for s in self.spec.statements if isinstance(s, Block)]
        if not blocks:
            message = "a spec needs at least one `block`"
            self.report.add(error("missing-block", message, self.end, help="add a line: block x4 < mamba >"))
        shares = self.macros.shares.values()
        self.reads_embedding = any(share.fields.reads_embedding for share in shares)
        self.counters: list[Counter] = [CopyCounter(share.name, share.copies) for share in shares]
        self.phases: Phases = tuple(0 for _ in shares)
        stack = tuple(element for block in blocks for element in self._block(block))
        self._all_copies_used(stack)
        self.report.raise_if_errors()
        assert self.settings is not None
        return self._graph(self.settings, roll(stack))

    def _graph(self, settings: ModelSettings, stack: tuple[Stack, ...]) -> Graph:
        d_model, vocab = d_model_axis(settings), constant_axis("vocab", settings.vocab)
        adds = sum(times * len(plan_of(layer).sublayers) for layer, times in counts(stack).items())
        return Graph(
            Settings(
                name=self._name(),
                vocab=vocab,
                d_model=d_model,
                context=settings.context,
                tied=settings.is_tied,
                residual_fp32=settings.residual.dtype == "fp32",
                n_residual_adds=adds,
                identity=settings,
            ),
            build_prologue(settings, vocab, d_model),
            stack,
            build_epilogue(settings, vocab, d_model),
            self._defaults(settings),
            (EMBED,) if self.reads_embedding else (),
        )

    def _name(self) -> str:
        return next((s.ident.name for s in self.spec.statements if isinstance(s, Model)), "model")

    def _defaults(self, settings: ModelSettings) -> tuple[str, ...]:
        """Defaults in force that a reader of the report should know of."""
        said = self.reader.statements
        shown = []
        if "norm" not in said:
            shown.append(f"norm {settings.norm.keyword}(eps={float(settings.norm.eps):g})")
        if not settings.is_tied and "tied" not in said:
            shown.append("untied head")
        return tuple(shown)

    # --- parts of the spec -------------------------------------------------------------------------

    def _one_model(self) -> None:
        names: set[str] = set()
        for statement in self.spec.statements:
            if isinstance(statement, Model):
                if names:
                    self.report.add(error("two-models", "a spec describes one model", statement.span))
                names.add(statement.ident.name)

    def _lets(self) -> None:
        reserved = {*fields_of(ModelSettings), *(f for kind in Kind.known.values() for f in fields_of(kind))}
        reserved -= {*Kind.known, *Part.known} & set(Kind.known)
        for statement in self.spec.statements:
            try:
                if isinstance(statement, Let):
                    self.macros.define(statement, self.env, reserved)
                elif isinstance(statement, Share):
                    self.macros.define_share(statement, self.env)
            except DiagnosticError as failure:
                self.report.add(*failure.diagnostics)

    def _mlp_draft(self) -> Draft | None:
        statement = self.reader.statements.get("mlp")
        value = statement.value if statement else None
        return from_value(value, self.macros, self.env) if isinstance(value, Name) else None

    def _block(self, block: Block) -> tuple[Stack, ...]:
        builder = StackBuilder(self.macros, self.env, self._resolve, self.report)
        repeat = block.repeat.count if block.repeat else 1
        try:
            stack, self.phases = builder.bracket(block.items, repeat, block.suffix, self.counters, self.phases)
            return stack
        except DiagnosticError as failure:
            self.report.add(*failure.diagnostics)
            return ()

    def _all_copies_used(self, stack: tuple[Stack, ...]) -> None:
        sublayers = [sublayer for layer in counts(stack) for sublayer in plan_of(layer).sublayers]
        used = {(s.share.name, s.share.copy) for s in sublayers if s.share is not None}
        for share in self.macros.shares.values():
            copies = sum(name == share.name for name, _ in used)
            if copies < share.copies and not self.report.errors:
                message = f"`{share.name}` has {share.copies} copies, and the stack uses {copies or 'none'} of them"
                hint = f"write x{copies}" if copies else "use it, or remove it"
                self.report.add(error("unused-copies", message, share.span, help=hint))

    # --- one layer ---------------------------------------------------------------------------------

    def _resolve(self, members: DraftLayer, suffixes: list[Suffix], copies: dict[str, int]) -> Layer | None:
        """The layer that `members` and the suffixes that speak of it describe; outer suffixes are weaker."""
        mixer: Draft | None = self.mlp
        stands_alone = any(sublayer.share is not None and not sublayer.branches for sublayer in members)
        own_mixer = stands_alone or any(map(is_channel_mixer, members_of(members)))
        saying: Suffix | None = None
        fields: list[Suffix] = []
        for suffix in suffixes:
            named = from_word(suffix.word, self.macros, self.env)
            if suffix.word.ident.name == "mlp" or named is not None:
                mixer = named if named is not None else self._mlp_suffix(suffix.word)
                saying = suffix
            else:
                fields.append(suffix)
        if not own_mixer and saying is not None:
            saying.used = True
        if not own_mixer and mixer is not None:
            members = (*members, DraftSublayer((mixer,)))
        for suffix in reversed(fields):
            members = self._say(members, suffix)
        if self.settings is None:
            for member in members_of(members):
                self._bind(member)
            return None
        plan = []
        for sublayer in members:
            kinds = self._kinds(sublayer)
            use = self._use(sublayer.share, copies) if sublayer.share else None
            if kinds is None or (sublayer.share and not use):
                return None
            plan.append(Sublayer(kinds, use))
        return self._layer(tuple(plan))

    def _kinds(self, sublayer: DraftSublayer) -> tuple[Kind, ...] | None:
        bound = [self._bind(member) for member in sublayer.branches]
        kinds = tuple(kind for kind in bound if kind is not None)
        return kinds if len(kinds) == len(bound) else None

    def _use(self, share: ShareDraft, copies: dict[str, int]) -> SharedUse | None:
        """The next use of a shared module; a second one in the same layer takes the copy after."""
        sublayers = [self._kinds(sublayer) for sublayer in share.layer]
        if any(kinds is None for kinds in sublayers):
            return None
        copy = copies[share.name]
        copies[share.name] = (copy + 1) % share.copies
        known = tuple(kinds for kinds in sublayers if kinds is not None)
        return SharedUse(share.name, share.copies, copy, share.fields, known)

    def _say(self, members: DraftLayer, suffix: Suffix) -> DraftLayer:
        """Put a suffix word below what the members that own it already say."""

        def say(member: Draft) -> Draft:
            if not member.owns(suffix.word, self.env) or member.said(suffix.word.ident.name):
                return member
            suffix.used = True
            return member.below(replace(suffix.word, tags=()))

        return map_members(members, say)

    def _mlp_suffix(self, word: Word) -> Draft | None:
        value = word.value
        if isinstance(value, NoneLiteral):
            return None
        draft = from_value(value, self.macros, self.env) if isinstance(value, Name) else None
        if draft is None:
            raise DiagnosticError(error("wrong-value", "`mlp` takes a channel mixer or none", word.span))
        return draft

    def _bind(self, draft: Draft) -> Kind | None:
        """The kind with its fields; its problems are reported where the fields were said."""
        if draft in self.bound:
            return self.bound[draft]
        try:
            binder = draft.bind(self.env)
            kind = binder.build(Kind)  # type: ignore[type-abstract]
        except DiagnosticError as failure:
            self.report.add(*failure.diagnostics)
            return None
        d_model = self.settings.d_model if self.settings else None
        for problem in kind.problems(d_model) if d_model else ():
            spans = [s for path in problem.fields if (s := binder.span_of(path)) is not None]
            at = (spans or [draft.span])[0]
            self.report.add(error(problem.code, problem.message, at, problem.label, help=problem.help))
        self.bound[draft] = kind
        return kind

    def _layer(self, sublayers: tuple[Sublayer, ...]) -> Layer:
        assert self.settings is not None
        branch = self.settings.residual.branch
        plan = LayerPlan(sublayers, self.settings.norm, None if branch is None else float(branch), self.reads_embedding)
        if plan not in self.layers:
            text = " + ".join(map(_sublayer_text, sublayers))
            self.layers[plan] = build_layer(plan, d_model_axis(self.settings), text)
        return self.layers[plan]


def plan_of(layer: Layer) -> LayerPlan:
    assert isinstance(layer.identity, LayerPlan)
    return layer.identity


def _sublayer_text(sublayer: Sublayer) -> str:
    text = " || ".join(kind.keyword for kind in sublayer.kinds)
    if sublayer.share is None:
        return text
    return f"{text} <- {sublayer.share.name}" if text else sublayer.share.name


def elaborate(spec: Spec, overrides: tuple[Setting, ...] = ()) -> tuple[Graph, list[Diagnostic]]:
    """The graph of a spec, and warnings. Raises DiagnosticError with every error of the spec."""
    elaborator = Elaborator(spec, overrides)
    graph = elaborator.run()
    return graph, list(elaborator.report)
