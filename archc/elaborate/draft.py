"""Drafts: a layer with everything that was said about it, strongest last, before its fields are bound.

A `let` is a macro: its draft is kept as written at its definition, and each use adds words to a copy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from archc.diagnostics import Diagnostic, DiagnosticError, Span, error, nearest
from archc.elaborate.bind import Binder, Environment
from archc.grammar.tree import Arg, Branch, Group, Ident, Layer, Let, Name, Share, Sublayer, TopK, Word
from archc.layers.kind import ChannelMixer, Kind
from archc.layers.parts import ShareFields

Step = Word | tuple[Arg, ...] | TopK


@dataclass(frozen=True)
class Draft:
    """A layer kind and what was said about it, weakest first."""

    cls: type[Kind]
    steps: tuple[Step, ...]
    span: Span

    def owns(self, word: Word, env: Environment) -> bool:
        return Binder(self.cls, env, self.span).owns(word)

    def said(self, name: str) -> bool:
        """Whether its own words set the field or part `name`."""
        return any(isinstance(step, Word) and step.ident.name == name for step in self.steps) or any(
            arg.name is not None and arg.name.name == name
            for step in self.steps
            if isinstance(step, tuple)
            for arg in step
        )

    def below(self, word: Word) -> Draft:
        """With a weaker word: what was said already wins over it."""
        return replace(self, steps=(word, *self.steps))

    def bind(self, env: Environment) -> Binder:
        binder = Binder(self.cls, env, self.span)
        for step in self.steps:
            if isinstance(step, TopK):
                binder.top_k(step)
            elif isinstance(step, Word):
                binder.word(step)
            else:
                binder.arguments(step)
        return binder


@dataclass(frozen=True)
class DraftSublayer:
    """One norm and one residual around a branch, or around several in parallel.

    `share` is a shared module: fed into the input of the norm where there are branches, the sublayer itself where not.
    """

    branches: tuple[Draft, ...]
    share: ShareDraft | None = None


@dataclass(frozen=True, eq=False)
class ShareDraft:
    """A `share` statement: its fields, and its sublayers with everything that was said about them."""

    name: str
    copies: int
    fields: ShareFields
    layer: tuple[DraftSublayer, ...]
    span: Span


DraftLayer = tuple[DraftSublayer, ...]


def members_of(layer: DraftLayer) -> list[Draft]:
    """Every kind of a layer, in order."""
    return [draft for sublayer in layer for draft in sublayer.branches]


def map_members(layer: DraftLayer, change: Callable[[Draft], Draft]) -> DraftLayer:
    return tuple(replace(sublayer, branches=tuple(map(change, sublayer.branches))) for sublayer in layer)


class Macros:
    """The names that `let` has bound so far."""

    def __init__(self) -> None:
        self.layers: dict[str, DraftLayer] = {}
        self.groups: dict[str, Group] = {}
        self.shares: dict[str, ShareDraft] = {}

    def define(self, let: Let, env: Environment, reserved: Iterable[str]) -> None:
        """Bind one `let`; it sees the names before it, and may shadow a kind once."""
        name = let.ident.name
        if name in self.layers or name in self.groups:
            message = f"`{name}` is already bound by a `let`"
            raise DiagnosticError(error("let-twice", message, let.ident.span, help="choose another name"))
        if name in reserved:
            message = f"`{name}` is a setting or a field, and a `let` would hide it"
            raise DiagnosticError(error("let-hides", message, let.ident.span, help="choose another name"))
        if isinstance(let.item, Group):
            self.groups[name] = let.item
        else:
            self.layers[name] = self.layer(let.item, env)

    def define_share(self, statement: Share, env: Environment) -> None:
        """Bind one `share`. A channel mixer is never appended inside it."""
        name = statement.ident.name
        if name in self.layers or name in self.groups or name in self.shares:
            message = f"`{name}` is already bound"
            raise DiagnosticError(error("let-twice", message, statement.ident.span, help="choose another name"))
        binder = Binder(ShareFields, env, statement.ident.span)
        binder.arguments(statement.args or ())
        fields = binder.build(ShareFields)
        layer = self.layer(statement.layer, env)
        copies = statement.repeat.count if statement.repeat else 1
        self.shares[name] = ShareDraft(name, copies, fields, layer, statement.span)

    def group(self, layer: Layer) -> Group | None:
        """The group that a list item names, if it does."""
        if len(layer.sublayers) != 1 or len(layer.sublayers[0].branches) != 1:
            return None
        words = layer.sublayers[0].branches[0].words
        return self.groups.get(words[0].ident.name) if len(words) == 1 else None

    def layer(self, layer: Layer, env: Environment) -> DraftLayer:
        """The sublayers of a layer, macros expanded."""
        return tuple(made for sublayer in layer.sublayers for made in self._sublayer(sublayer, env))

    def words(self, ident: Ident) -> tuple[Word, ...] | None:
        """What a name stands for where a kind is a value (`expert=wide`)."""
        members = members_of(self.layers.get(ident.name, ()))
        if len(members) != 1:
            return None
        (draft,) = members
        head = Word(ident=Ident(name=draft.cls.keyword, span=ident.span), args=_arguments(draft), span=ident.span)
        return head, *(step for step in draft.steps if isinstance(step, Word))

    def _sublayer(self, sublayer: Sublayer, env: Environment) -> DraftLayer:
        if sublayer.feed is not None:
            return self._fed(sublayer, env)
        made = [self._branch(branch, env) for branch in sublayer.branches]
        if len(made) == 1:
            return made[0]
        for branch, layer in zip(sublayer.branches, made, strict=True):
            if len(layer) != 1:
                message = "a branch of `||` is one sublayer, and this is a sequence"
                raise DiagnosticError(error("sequence-in-parallel", message, branch.span))
        return (DraftSublayer(tuple(draft for layer in made for draft in members_of(layer))),)

    def _fed(self, sublayer: Sublayer, env: Environment) -> DraftLayer:
        """`mixer <- g`: the output of g goes into the input of this sublayer's norm."""
        feed = sublayer.feed
        assert feed is not None
        if feed.ident.name not in self.shares:
            near = nearest(feed.ident.name, self.shares)
            hint = f"did you mean `{near}`?" if near else f"define it before: share {feed.ident.name} = ..."
            message = f"there is no shared module `{feed.ident.name}`"
            raise DiagnosticError(error("unknown-share", message, feed.ident.span, help=hint))
        if feed.args:
            raise DiagnosticError(error("wrong-arguments", "a use of a shared module takes no fields", feed.span))
        made = self._sublayer(replace(sublayer, feed=None), env)
        if len(made) != 1 or made[0].share is not None:
            message = "`<-` feeds one sublayer, and this is a sequence or fed already"
            raise DiagnosticError(error("sequence-in-parallel", message, sublayer.span))
        return (replace(made[0], share=self.shares[feed.ident.name]),)

    def _branch(self, branch: Branch, env: Environment) -> DraftLayer:
        head, *rest = branch.words
        name = head.ident.name
        if head.value is not None:
            message = f"a layer begins with a kind, not with a value for `{name}`"
            hint = f"known kinds: {', '.join(Kind.known)}"
            raise DiagnosticError(error("not-a-layer", message, head.span, help=hint))
        if name in self.shares:
            if head.args or rest:
                raise DiagnosticError(error("wrong-arguments", "a use of a shared module takes no fields", branch.span))
            return (DraftSublayer((), self.shares[name]),)
        if name in self.layers:
            layer = self.layers[name]
        elif name in Kind.known:
            layer = (DraftSublayer((Draft(Kind.known[name], (), head.span),)),)
        else:
            raise DiagnosticError(self._unknown(head.ident))
        steps: list[Step] = [head.args] if head.args is not None else []
        layer = self._override(layer, [*steps, *_topk(head)], env, head.span)
        return self._override(layer, rest, env, branch.span)

    def _override(self, layer: DraftLayer, steps: Iterable[Step], env: Environment, span: Span) -> DraftLayer:
        """Add words to the one member that they belong to."""
        for step in steps:
            members = members_of(layer)
            owners = [m for m in members if len(members) == 1 or (isinstance(step, Word) and m.owns(step, env))]
            if len(owners) != 1:
                what = f"`{step.ident.name}`" if isinstance(step, Word) else "this"
                count = "no member" if not owners else f"{len(owners)} members"
                message = f"{what} must belong to exactly one member of a composite layer, and {count} take it"
                at = step.span if isinstance(step, Word) else span
                raise DiagnosticError(error("ambiguous-override", message, at, help="say it in the `let`"))
            owner, target = owners[0], replace(owners[0], steps=(*owners[0].steps, step), span=span)
            layer = map_members(layer, lambda m, owner=owner, target=target: target if m is owner else m)  # type: ignore[misc]
        return layer

    def _unknown(self, ident: Ident) -> Diagnostic:
        known = [*self.layers, *self.groups, *self.shares, *Kind.known]
        near = nearest(ident.name, known)
        hint = f"did you mean `{near}`?" if near else f"known layers: {', '.join(dict.fromkeys(known))}"
        return error("unknown-layer", f"there is no layer `{ident.name}`", ident.span, help=hint)


def is_channel_mixer(draft: Draft) -> bool:
    return issubclass(draft.cls, ChannelMixer)


def from_word(word: Word, macros: Macros, env: Environment) -> Draft | None:
    """The channel mixer that a suffix word names (`moe top2/16`), if it names one."""
    name = word.ident.name
    members = members_of(macros.layers.get(name, ()))
    if name not in macros.layers and name in Kind.known:
        members = [Draft(Kind.known[name], (), word.span)]
    if len(members) != 1 or not is_channel_mixer(members[0]):
        return None
    steps: list[Step] = [word.args] if word.args is not None else []
    return replace(members[0], steps=(*members[0].steps, *steps, *_topk(word)), span=word.span)


def from_value(value: Name, macros: Macros, env: Environment) -> Draft | None:
    """The channel mixer that is the value of `mlp`."""
    return from_word(Word(ident=value.ident, args=value.args, span=value.span), macros, env)


def _topk(word: Word) -> list[Step]:
    return [tag for tag in word.tags if isinstance(tag, TopK)]


def _arguments(draft: Draft) -> tuple[Arg, ...]:
    found: list[Arg] = []
    for step in draft.steps:
        if isinstance(step, TopK):
            found.append(Arg(name=None, value=step, span=step.span))
        elif not isinstance(step, Word):
            found += step
    return tuple(found)
