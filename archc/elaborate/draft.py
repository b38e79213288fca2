"""Drafts: a layer with everything that was said about it, strongest last, before its fields are bound."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from archc.diagnostics import Span
from archc.elaborate.accepts import field_of
from archc.elaborate.bind import Binder, Environment
from archc.elaborate.said import Step, fields_said
from archc.grammar.tree import Word
from archc.layers.kind import ChannelMixer, Kind
from archc.layers.parts import ShareFields


@dataclass(frozen=True)
class Draft:
    """A layer kind and what was said about it, weakest first. `span` is its use, `origin` where the kind was named."""

    cls: type[Kind]
    steps: tuple[Step, ...]
    span: Span
    origin: Span

    def owns(self, word: Word) -> bool:
        """Whether `word` says something about this kind."""
        return field_of(self.cls, word.ident.name) is not None

    def said(self, word: Word) -> Span | None:
        """Where its own words set the field that `word` would set."""
        info = field_of(self.cls, word.ident.name)
        return next((span for name, span in fields_said(self.cls, self.steps) if info and name == info.name), None)

    def below(self, word: Word) -> Draft:
        """With a weaker word: what was said already wins over it."""
        return replace(self, steps=(word, *self.steps))

    def bind(self, env: Environment) -> Binder:
        return Binder(self.cls, env, self.span, origin=self.origin).steps(self.steps)

    @property
    def is_channel_mixer(self) -> bool:
        return issubclass(self.cls, ChannelMixer)


@dataclass(frozen=True)
class DraftSublayer:
    """One norm and one residual around a branch, or around several in parallel.

    `share` is a shared module: fed into the input of the norm where there are branches, the sublayer itself where not.
    """

    branches: tuple[Draft, ...]
    share: ShareDraft | None = None

    @property
    def is_channel_mixer(self) -> bool:
        return bool(self.branches) and all(draft.is_channel_mixer for draft in self.branches)


@dataclass(frozen=True, eq=False)
class ShareDraft:
    """A `share` statement: its fields, and its sublayers with everything that was said about them."""

    name: str
    copies: int
    fields: ShareFields
    layer: tuple[DraftSublayer, ...]
    span: Span
    adapter_span: Span | None = None


DraftLayer = tuple[DraftSublayer, ...]


def members_of(layer: DraftLayer) -> list[Draft]:
    """Every kind of a layer, in order."""
    return [draft for sublayer in layer for draft in sublayer.branches]


def map_members(layer: DraftLayer, change: Callable[[Draft], Draft]) -> DraftLayer:
    return tuple(replace(sublayer, branches=tuple(map(change, sublayer.branches))) for sublayer in layer)
