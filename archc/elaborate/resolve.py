"""One layer: what its words and the suffixes that speak of it say together, bound and built."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

from archc.diagnostics import Diagnostic, DiagnosticError, Label, Report, Span, error, warning
from archc.elaborate.accepts import field_of
from archc.elaborate.assemble import LayerPlan, SharedUse, Sublayer, build_layer, d_model_axis
from archc.elaborate.bind import Binder
from archc.elaborate.draft import Draft, DraftLayer, DraftSublayer, ShareDraft, map_members, members_of
from archc.elaborate.macros import Macros
from archc.elaborate.reader import SettingsReader
from archc.elaborate.settings import ModelSettings
from archc.elaborate.suffix import Suffix
from archc.elaborate.unknown import unknown_suffix
from archc.grammar.tree import Name, NoneLiteral, TopK, Word
from archc.ir.graph import Layer
from archc.ir.op import MisfitError
from archc.layers.kind import Kind, Problem, fields_of
from archc.layers.parts import Lora
from archc.layers.words import either

MAX_LAYERS = 512  # different ones; each is built, and each copy of a shared module makes some
SETTING = "spec."  # begins the path of a setting among the causes of a problem


class Resolver:
    """Makes layers; each distinct one once."""

    def __init__(
        self,
        macros: Macros,
        reader: SettingsReader,
        settings: ModelSettings | None,
        mlp: Draft | None,
        report: Report,
        reads_embedding: bool,
    ) -> None:
        self.macros = macros
        self.reader = reader
        self.env = reader.env
        self.settings = settings
        self.mlp = mlp
        self.report = report
        self.reads_embedding = reads_embedding
        self._layers: dict[LayerPlan, Layer] = {}
        self._bound: dict[Draft, Kind | None] = {}
        self._incomplete: set[int] = set()
        self._adapters_checked: set[str] = set()

    def resolve(self, layer: DraftLayer, suffixes: list[Suffix], copies: dict[str, int]) -> Layer | None:
        """The layer that a draft and its suffixes describe, outer suffixes first; None if something is wrong."""
        mixing, saying, is_sure = self._sorted(suffixes)
        layer = self._with_mixer(layer, mixing)
        for suffix in reversed(saying):
            layer = self._say(layer, suffix)
        plan = []
        for sublayer in layer:
            kinds = self._kinds(sublayer)
            use = self._use(sublayer.share, copies) if sublayer.share else None
            if kinds is not None and (use or not sublayer.share):
                plan.append(Sublayer(kinds, use))
        if self.settings is None or not is_sure or len(plan) < len(layer):
            return None
        self._warn_of_mixers(layer)
        return self._layer(tuple(plan), self.settings, layer)

    # --- suffixes ----------------------------------------------------------------------------------

    def _sorted(self, suffixes: list[Suffix]) -> tuple[list[tuple[Suffix, Draft | None]], list[Suffix], bool]:
        """Suffixes that give a channel mixer, with it; those that give a field; and whether these are all."""
        mixing: list[tuple[Suffix, Draft | None]] = []
        saying: list[Suffix] = []
        is_sure = True
        for suffix in suffixes:
            try:
                if self._names_mixer(suffix):
                    mixing.append((suffix, self._mixer_of(suffix.word)))
                else:
                    saying.append(suffix)
            except DiagnosticError as failure:
                self.report.add(*failure.diagnostics)
                suffix.used = True  # it might have had an effect
                is_sure = False
        return mixing, saying, is_sure

    def _names_mixer(self, suffix: Suffix) -> bool:
        """Whether a suffix gives a channel mixer; it may be neither that nor a field of anything."""
        word = suffix.word
        if word.ident.name == "mlp" or self.macros.channel_mixer(word) is not None:
            return True
        if any(field_of(kind, word.ident.name) for kind in Kind.known.values()):
            return False
        if self.macros.is_name(word.ident.name):
            message = f"`{word.ident.name}` is a layer, and a suffix is a channel mixer or a field"
            hint = f"list it in the brackets: < ..., {word.ident.name} >"
            raise DiagnosticError(error("misplaced-layer", message, word.span, help=hint))
        names = [*self.macros.layers, *self.macros.groups]
        raise DiagnosticError(unknown_suffix(word.ident, names))

    def _with_mixer(self, layer: DraftLayer, suffixes: list[tuple[Suffix, Draft | None]]) -> DraftLayer:
        """The layer with its channel mixer: its own, or the nearest suffix's, or the spec's `mlp`."""
        own = next((draft.span for draft in members_of(layer) if draft.is_channel_mixer), None)
        for sublayer in layer:
            if sublayer.share is not None and not sublayer.branches:
                own = own or sublayer.share.span
        if own is not None:
            for suffix, _ in suffixes:
                suffix.yields_to(own, "this layer has its own")
            return layer
        mixer = self.mlp
        if suffixes:
            *weaker, (strongest, mixer) = suffixes
            strongest.used = True
            for suffix, _ in weaker:
                suffix.yields_to(strongest.word.span, "this wins")
        return layer if mixer is None else (*layer, DraftSublayer((mixer,)))

    def _mixer_of(self, word: Word) -> Draft | None:
        """The channel mixer that a suffix gives: `moe top2/16`, `mlp=swiglu(64)`, `mlp none`."""
        if word.ident.name != "mlp":
            return self.macros.channel_mixer(word)
        value = word.value
        if word.args is not None and len(word.args) == 1 and word.args[0].name is None:
            only = word.args[0].value
            value = None if isinstance(only, TopK) else only
        if isinstance(value, NoneLiteral):
            return None
        draft = self.mixer_of_value(value, word) if isinstance(value, Name) else None
        if draft is None:
            message = "`mlp` takes a channel mixer or none"
            at = value.span if value is not None else word.span
            raise DiagnosticError(error("wrong-value", message, at, help="write `mlp none`, or a mixer: swiglu(1024)"))
        return draft

    def mixer_of_value(self, value: Name, word: Word) -> Draft | None:
        """The channel mixer that is the value of `mlp`, with the topK/E behind it."""
        tags = tuple(tag for tag in word.tags if isinstance(tag, TopK))
        return self.macros.channel_mixer(Word(ident=value.ident, args=value.args, tags=tags, span=value.span))

    def _say(self, layer: DraftLayer, suffix: Suffix) -> DraftLayer:
        """Put a suffix word below what the members that own it already say."""

        def say(member: Draft) -> Draft:
            if not member.owns(suffix.word):
                return member
            stronger = member.said(suffix.word)
            if stronger is not None:
                suffix.yields_to(stronger, "this wins")
                return member
            suffix.used = True
            tags = tuple(tag for tag in suffix.word.tags if isinstance(tag, TopK))
            return member.below(replace(suffix.word, tags=tags))

        return map_members(layer, say)

    def _warn_of_mixers(self, layer: DraftLayer) -> None:
        for one, other in pairwise(layer):
            if one.is_channel_mixer and other.is_channel_mixer:
                message = "two channel mixers follow one another in one layer"
                first = Label(one.branches[0].span, "the first")
                hint = "a layer holds one behind its mixer; `||` runs two side by side"
                self.report.add(warning("two-channel-mixers", message, other.branches[0].span, "", first, help=hint))

    # --- kinds -------------------------------------------------------------------------------------

    def _kinds(self, sublayer: DraftSublayer) -> tuple[Kind, ...] | None:
        bound = [self.bind(member) for member in sublayer.branches]
        kinds = tuple(kind for kind in bound if kind is not None)
        return kinds if len(kinds) == len(bound) else None

    def _use(self, share: ShareDraft, copies: dict[str, int]) -> SharedUse | None:
        """The next use of a shared module; a second one in the same layer takes the copy after."""
        sublayers = [self._kinds(sublayer) for sublayer in share.layer]
        copy = copies[share.name]
        copies[share.name] = (copy + 1) % share.copies
        known = tuple(kinds for kinds in sublayers if kinds is not None)
        if len(known) < len(sublayers):
            return None
        adapter = share.fields.adapter
        if adapter is not None:
            self._check_adapter(share, adapter, known)
            known = tuple(tuple(map(adapter.beside, kinds)) for kinds in known)
        return SharedUse(share.name, share.copies, copy, replace(share.fields, adapter=None), known)

    def _check_adapter(self, share: ShareDraft, adapter: Lora, sublayers: tuple[tuple[Kind, ...], ...]) -> None:
        names = dict.fromkeys(name for kinds in sublayers for kind in kinds for name in kind.adaptable)
        unknown = [name for name in adapter.on if name not in names]
        if unknown and share.name not in self._adapters_checked:
            self._adapters_checked.add(share.name)
            message = f"`{share.name}` has no projection `{unknown[0]}` to adapt"
            hint = f"its adapters may be on {either(names, 'and')}" if names else "leave out `adapter`"
            self.report.add(error("unknown-projection", message, share.adapter_span or share.span, help=hint))

    def bind(self, draft: Draft) -> Kind | None:
        """The kind with its fields; what is wrong with it is reported where the fields were said."""
        if draft not in self._bound:
            self._bound[draft] = self._bind(draft)
        return self._bound[draft]

    def span_of(self, kind: Kind) -> Span:
        """Where a kind was first written."""
        return next(draft.span for draft, bound in self._bound.items() if bound == kind)

    def _bind(self, draft: Draft) -> Kind | None:
        binder = draft.bind(self.env)
        try:
            kind: Kind = binder.build(Kind)  # type: ignore[type-abstract]
        except DiagnosticError as failure:
            self._add_once(draft, failure.diagnostics)
            return None
        problems = list(all_problems(kind, self.settings.d_model)) if self.settings else []
        self._add_once(draft, tuple(self._diagnostic(problem, binder) for problem in problems))
        return None if problems else kind

    def _add_once(self, draft: Draft, diagnostics: tuple[Diagnostic, ...]) -> None:
        """Report; what is missing in a `let` once, and not at each of its uses."""
        for diagnostic in diagnostics:
            if diagnostic.code == "missing-field" and diagnostic.labels[0].span == draft.span != draft.origin:
                if draft.origin.start in self._incomplete:
                    continue
                self._incomplete.add(draft.origin.start)
            self.report.add(diagnostic)

    def _diagnostic(self, problem: Problem, binder: Binder) -> Diagnostic:
        path, *others = problem.fields or ("",)
        at = binder.span_of(path) or binder.span
        causes = [(other, "") for other in others] + list(problem.because)
        labels = [Label(span, text) for name, text in causes if (span := self._cause(name, binder)) is not None]
        if at == binder.span and binder.origin != binder.span:
            labels.append(Label(binder.origin, "defined here"))
        labels = [label for label in labels if not _overlap(label.span, at)]
        return error(problem.code, problem.message, at, problem.label, *labels, help=problem.help)

    def _cause(self, path: str, binder: Binder) -> Span | None:
        if path.startswith(SETTING):
            return self.reader.span_of(path.removeprefix(SETTING))
        return binder.span_of(path, exactly=True)

    def _layer(self, sublayers: tuple[Sublayer, ...], settings: ModelSettings, draft: DraftLayer) -> Layer:
        plan = LayerPlan(sublayers, settings.norm, settings.residual, self.reads_embedding)
        if plan not in self._layers:
            if len(self._layers) >= MAX_LAYERS:
                at = [member.span for member in members_of(draft)] + [s.share.span for s in draft if s.share]
                message = f"a model has at most {MAX_LAYERS} different layers"
                raise DiagnosticError(error("too-large", message, at[0], help="use fewer copies, or shorter periods"))
            text = " + ".join(map(_sublayer_text, sublayers))
            try:
                self._layers[plan] = build_layer(plan, d_model_axis(settings), text)
            except MisfitError as misfit:
                at = [member.span for member in members_of(draft)] + [s.share.span for s in draft if s.share]
                raise DiagnosticError(error("misfit", str(misfit), at[0])) from None
        return self._layers[plan]


def all_problems(kind: Kind, d_model: int) -> Iterator[Problem]:
    """The problems of a kind and of the kinds that are its fields, as an expert is."""
    yield from kind.problems(d_model)
    for info in fields_of(type(kind)).values():
        value = getattr(kind, info.attribute)
        if isinstance(value, Kind):
            for problem in all_problems(value, d_model):
                fields = tuple(f"{info.name}.{path}" for path in problem.fields) or (info.name,)
                because = tuple((_inside(info.name, path), text) for path, text in problem.because)
                yield replace(problem, fields=fields, because=because)


def _inside(name: str, path: str) -> str:
    return path if path.startswith(SETTING) else f"{name}.{path}"


def _overlap(one: Span, other: Span) -> bool:
    return one.source is other.source and one.start < other.end and other.start < one.end


def _sublayer_text(sublayer: Sublayer) -> str:
    text = " || ".join(kind.keyword for kind in sublayer.kinds)
    if sublayer.share is None:
        return text
    return f"{text} <- {sublayer.share.name}" if text else sublayer.share.name
