"""The names that `let` and `share` bind, and what layers mean with them put in.

A `let` is a macro: its draft is kept as written at its definition, and each use adds words to a copy. Inside a `let` or
`share` only the names before it are known, also where its words are looked at later.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import replace

from archc.diagnostics import Diagnostic, DiagnosticError, Label, Span, error, nearest
from archc.elaborate.bind import Binder, Environment
from archc.elaborate.composite import check_branch, fields_of_share, group_in_layer, override, own_steps
from archc.elaborate.draft import Draft, DraftLayer, DraftSublayer, ShareDraft, map_members, members_of
from archc.elaborate.findings import Together
from archc.elaborate.names import check_let, check_share, class_name
from archc.elaborate.said import Step, counted, misplaced_every
from archc.elaborate.unknown import unknown_layer
from archc.grammar.tree import Branch, Feed, Group, Ident, Layer, Let, Share, Sublayer, Word
from archc.layers.kind import Kind
from archc.layers.parts import Concat, ShareFields
from archc.layers.words import either

MAX_MEMBERS = 32  # kinds in one layer; `let` doubles them faster than anyone reads


class Macros:
    """The names that `let` and `share` bind. `statements` are all of them in order."""

    def __init__(self, statements: Iterable[Let | Share]) -> None:
        self.layers: dict[str, DraftLayer] = {}
        self.groups: dict[str, Group] = {}
        self.shares: dict[str, ShareDraft] = {}
        self.statements = list(statements)
        self._starts = [statement.span.start for statement in self.statements]
        self._places: dict[str, Let | Share] = {}
        for statement in self.statements:
            self._places.setdefault(statement.ident.name, statement)
        self._broken: set[str] = set()
        self._unsound: set[str] = set()

    def define(self, statement: Let | Share, env: Environment, reserved: Iterable[str]) -> None:
        """Bind one name. Raises DiagnosticError; the name is then known as broken, and its uses say no more."""
        self._check_name(statement, reserved)
        name = statement.ident.name
        self._broken.add(name)
        if isinstance(statement, Share):
            self.shares[name] = self._share(statement, env)
        elif isinstance(statement.item, Group):
            self.groups[name] = statement.item
        else:
            self.layers[name] = self.layer(statement.item)
        self._broken.discard(name)

    def group(self, layer: Layer) -> Group | None:
        """The group that a list item names, if it does."""
        if len(layer.sublayers) != 1 or len(layer.sublayers[0].branches) != 1 or layer.sublayers[0].feed:
            return None
        head, *rest = layer.sublayers[0].branches[0].words
        if rest or head.args is not None or head.value is not None or not self._knows(head.ident):
            return None
        return self.groups.get(head.ident.name)

    def layer(self, layer: Layer) -> DraftLayer:
        """The sublayers of a layer, macros expanded. Raises DiagnosticError with all that is wrong in it."""
        made: list[DraftSublayer] = []
        with Together() as together:
            for sublayer in layer.sublayers:
                with together:
                    made += self._sublayer(sublayer)
        if len(made) > MAX_MEMBERS or len(members_of(tuple(made))) > MAX_MEMBERS:
            message = f"a layer holds at most {MAX_MEMBERS} kinds"
            raise DiagnosticError(error("too-large", message, layer.span, help="list them as layers of a block"))
        return tuple(made)

    def expand(self, ident: Ident) -> tuple[type[Kind], tuple[Step, ...]] | None:
        """What a name stands for where a kind is a value (`expert=wide`)."""
        if not self._knows(ident):
            return None
        if ident.name in self._broken | self._unsound:
            raise DiagnosticError()  # said where it is defined
        members = members_of(self.layers.get(ident.name, ()))
        return (members[0].cls, members[0].steps) if len(members) == 1 else None

    def check(self, env: Environment) -> Iterator[Diagnostic]:
        """Wrong words of names that no layer may use; a `let` may leave fields open."""
        for name, layer in self.layers.items():
            binders = [draft.bind(env) for draft in members_of(layer)]
            if any(binder.failed for binder in binders):
                self._unsound.add(name)
            for binder in binders:
                yield from binder.errors

    def channel_mixer(self, word: Word) -> Draft | None:
        """The channel mixer that a suffix word names (`moe top2/16`), if it names one."""
        name = word.ident.name
        known = self._knows(word.ident)
        if known and name in self._broken:
            raise DiagnosticError()
        members = members_of(self.layers.get(name, ())) if known else []
        if name not in self.layers and name in Kind.known:
            members = [Draft(Kind.known[name], (), word.ident.span, word.ident.span)]
        if len(members) != 1 or not members[0].is_channel_mixer or word.value is not None:
            return None
        return replace(members[0], steps=(*members[0].steps, *own_steps(word)), span=word.ident.span)

    def is_name(self, name: str) -> bool:
        return name in self._places or name in Kind.known

    # --- definitions -------------------------------------------------------------------------------

    def _check_name(self, statement: Let | Share, reserved: Iterable[str]) -> None:
        ident = statement.ident
        name = ident.name
        first = self._places[name]
        if first is not statement:
            earlier = Label(first.ident.span, "first bound here")
            message = f"`{name}` is bound twice"
            raise DiagnosticError(
                error("let-twice", message, ident.span, "again", earlier, help="choose another name for one of them")
            )
        if name in reserved:
            self._broken.add(name)
            message = f"`{name}` is a setting or a field, and would be hidden"
            raise DiagnosticError(error("let-hides", message, ident.span, help=f"choose another, as `my_{name}`"))
        finding = check_share(ident) if isinstance(statement, Share) else check_let(ident)
        if finding is not None:
            self._broken.add(name)
            raise DiagnosticError(finding)

    def _share(self, statement: Share, env: Environment) -> ShareDraft:
        """A channel mixer is never appended inside a shared module."""
        name = statement.ident.name
        same = next((other for other in self.shares if class_name(other) == class_name(name)), None)
        if same is not None:
            message = f"`{name}` and `{same}` would give the model's code the same class, `{class_name(name)}`"
            earlier = Label(self._places[same].ident.span)
            hint = "choose names that differ in more than case and `_`"
            raise DiagnosticError(error("reserved-name", message, statement.ident.span, "", earlier, help=hint))
        with Together() as together:
            with together:
                binder = Binder(ShareFields, env, statement.ident.span, owner="`share`")
                binder.arguments(statement.args or ())
                fields = binder.build(ShareFields)
                self._one_width(fields, binder)
            with together:
                layer = self.layer(statement.layer)
                self._no_share_inside(layer, statement)
        copies = statement.repeat.count if statement.repeat else 1
        return ShareDraft(name, copies, fields, layer, statement.span, binder.span_of("adapter.on"))

    def _one_width(self, fields: ShareFields, binder: Binder) -> None:
        """A residual adds what goes in to what comes out, and a concatenation is wider."""
        span = binder.span_of("in")
        if isinstance(fields.in_, Concat) and fields.residual is not None and span is not None:
            message = "a shared module that reads two values side by side cannot add them to its output"
            label = "twice as wide as the output"
            raise DiagnosticError(error("wide-residual", message, span, label, help="write residual=none beside it"))

    def _no_share_inside(self, layer: DraftLayer, statement: Share) -> None:
        inner = next((sublayer.share for sublayer in layer if sublayer.share is not None), None)
        if inner is not None:
            message = f"a shared module cannot use another, as `{statement.ident.name}` uses `{inner.name}`"
            raise DiagnosticError(
                error(
                    "misplaced-share", message, statement.layer.span, help="use both of them in the layers of a block"
                )
            )

    def _knows(self, ident: Ident) -> bool:
        """Whether a name is bound where it stands: inside a `let` or `share` only the earlier ones are."""
        bound = self._places.get(ident.name)
        if bound is None:
            return False
        around = self._statement_around(ident.span)
        return around is None or bound.span.start < around.span.start

    def _statement_around(self, span: Span) -> Let | Share | None:
        i = bisect_right(self._starts, span.start) - 1
        if i < 0:
            return None
        statement = self.statements[i]
        inside = statement.span.source is span.source and span.start < statement.span.end
        return statement if inside else None

    # --- layers ------------------------------------------------------------------------------------

    def _sublayer(self, sublayer: Sublayer) -> DraftLayer:
        made: list[DraftLayer] = []
        share: ShareDraft | None = None
        with Together() as together:
            for branch in sublayer.branches:
                with together:
                    made.append(self._branch(branch))
            if sublayer.feed is not None:
                with together:
                    share = self._feed(sublayer.feed)
        if len(made) > 1:
            for branch, layer in zip(sublayer.branches, made, strict=True):
                check_branch(branch, layer)
            made = [(DraftSublayer(tuple(draft for layer in made for draft in members_of(layer))),)]
        if share is None:
            return made[0]
        if len(made[0]) != 1:
            message = "`<-` feeds one sublayer, and this is a sequence"
            hint = "feed a member of it, as in: attn + mamba <- g"
            raise DiagnosticError(error("sequence-in-parallel", message, sublayer.span, help=hint))
        if made[0][0].share is not None:
            message = "a shared module feeds a sublayer that has none yet"
            raise DiagnosticError(error("misplaced-share", message, sublayer.span, help="feed one: mamba2 <- g"))
        return (replace(made[0][0], share=share),)

    def _feed(self, feed: Feed) -> ShareDraft:
        name = feed.ident.name
        if name not in self.shares or not self._knows(feed.ident):
            if name in self._broken and self._knows(feed.ident):
                raise DiagnosticError()
            raise DiagnosticError(self._unknown_share(feed.ident))
        if feed.args:
            raise DiagnosticError(fields_of_share(feed.args[0].span.to(feed.args[-1].span), name))
        return self.shares[name]

    def _unknown_share(self, ident: Ident) -> Diagnostic:
        name, place = ident.name, self._places.get(ident.name)
        if isinstance(place, Share):
            return unknown_layer(ident, (), place.span)
        near = nearest(name, self.shares)
        hint = f"did you mean `{near}`?" if near else f"define it before this line: share {name} = ..."
        message = f"there is no shared module `{name}`"
        if place is not None or name in Kind.known:
            message = f"`{name}` is no shared module, and cannot feed a layer"
        return error("unknown-share", message, ident.span, help=hint)

    def _branch(self, branch: Branch) -> DraftLayer:
        head, *rest = branch.words
        name = head.ident.name
        for word in branch.words:
            every = counted(word)
            if every is not None:
                raise DiagnosticError(misplaced_every(every))
        if head.value is not None:
            message = f"a layer begins with its kind, and `{name}` is given a value here"
            hint = f"the kinds are {either(Kind.known, 'and')}"
            raise DiagnosticError(error("not-a-layer", message, head.span, help=hint))
        known = self._knows(head.ident)
        if known and name in self._broken:
            raise DiagnosticError()  # said where it is defined
        if known and name in self.shares:
            if head.args or rest or head.tags:
                raise DiagnosticError(fields_of_share(branch.span, name))
            return (DraftSublayer((), self.shares[name]),)
        if known and name in self.groups:
            raise DiagnosticError(group_in_layer(branch, head, name))
        if known and name in self.layers:
            layer = self.layers[name]
        elif name in Kind.known:
            layer = (DraftSublayer((Draft(Kind.known[name], (), head.ident.span, head.ident.span),)),)
        else:
            later = self._places.get(name)
            known_names = [known for known in self._places if self._knows(replace(head.ident, name=known))]
            raise DiagnosticError(unknown_layer(head.ident, known_names, later.span if later else None))
        layer = map_members(layer, lambda draft: replace(draft, span=head.ident.span))
        return override(layer, [*own_steps(head), *rest], head)
