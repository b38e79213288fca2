"""The names that `let` and `share` bind, and what layers mean with them put in.

A `let` is a macro: its draft is kept as written at its definition, and each use adds words to a copy. Inside a `let` or
`share` only the names before it are known, also where its words are looked at later.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import replace

from archc.diagnostics import Diagnostic, DiagnosticError, Label, Span, error, nearest
from archc.elaborate.bind import (
    Binder,
    Environment,
    Step,
    counted,
    fields_said,
    misplaced_every,
    said_twice,
    unexpected_topk,
)
from archc.elaborate.draft import Draft, DraftLayer, DraftSublayer, ShareDraft, map_members, members_of
from archc.elaborate.names import check_let, check_share, class_name
from archc.elaborate.unknown import unknown_field, unknown_layer
from archc.grammar.tree import Arg, Branch, Feed, Group, Ident, Layer, Let, Name, Share, Sublayer, TopK, Word
from archc.layers.kind import Kind
from archc.layers.parts import ShareFields
from archc.layers.words import either

MAX_MEMBERS = 256  # kinds in one layer; `let` doubles them faster than anyone reads


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
        with _Together() as together:
            for sublayer in layer.sublayers:
                with together:
                    made += self._sublayer(sublayer)
        if len(made) > MAX_MEMBERS or len(members_of(tuple(made))) > MAX_MEMBERS:
            message = f"a layer has at most {MAX_MEMBERS} sublayers and branches"
            raise DiagnosticError(error("too-large", message, layer.span, help="list them as layers of a block"))
        return tuple(made)

    def expand(self, ident: Ident) -> tuple[type[Kind], tuple[Step, ...]] | None:
        """What a name stands for where a kind is a value (`expert=wide`)."""
        if not self._knows(ident):
            return None
        if ident.name in self._broken:
            raise DiagnosticError()  # said where it is defined
        members = members_of(self.layers.get(ident.name, ()))
        return (members[0].cls, members[0].steps) if len(members) == 1 else None

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
        return replace(members[0], steps=(*members[0].steps, *_own_steps(word)), span=word.ident.span)

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
        with _Together() as together:
            with together:
                binder = Binder(ShareFields, env, statement.ident.span, owner="`share`")
                binder.arguments(statement.args or ())
                fields = binder.build(ShareFields)
            with together:
                layer = self.layer(statement.layer)
                self._no_share_inside(layer, statement)
        copies = statement.repeat.count if statement.repeat else 1
        return ShareDraft(name, copies, fields, layer, statement.span)

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
        with _Together() as together:
            for branch in sublayer.branches:
                with together:
                    made.append(self._branch(branch))
            if sublayer.feed is not None:
                with together:
                    share = self._feed(sublayer.feed)
        if len(made) > 1:
            for branch, layer in zip(sublayer.branches, made, strict=True):
                _check_branch(branch, layer)
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
            near = nearest(name, self.shares)
            other = "" if name not in self._places and name not in Kind.known else ", for it is no `share`"
            hint = f"did you mean `{near}`?" if near else f"define it before this line: share {name} = ..."
            if isinstance(self._places.get(name), Share):
                hint = "a `let` or `share` sees the names before it: move it up"
            message = f"there is no shared module `{name}`" if not other else f"`{name}` cannot be fed{other}"
            raise DiagnosticError(error("unknown-share", message, feed.ident.span, help=hint))
        if feed.args:
            raise DiagnosticError(_fields_of_share(feed.args[0].span.to(feed.args[-1].span), name))
        return self.shares[name]

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
                raise DiagnosticError(_fields_of_share(branch.span, name))
            return (DraftSublayer((), self.shares[name]),)
        if known and name in self.groups:
            raise DiagnosticError(_group_in_layer(branch, head, name))
        if known and name in self.layers:
            layer = self.layers[name]
        elif name in Kind.known:
            layer = (DraftSublayer((Draft(Kind.known[name], (), head.ident.span, head.ident.span),)),)
        else:
            later = self._places.get(name)
            known_names = [known for known in self._places if self._knows(replace(head.ident, name=known))]
            raise DiagnosticError(unknown_layer(head.ident, known_names, later.span if later else None))
        layer = map_members(layer, lambda draft: replace(draft, span=head.ident.span))
        return self._override(layer, [*_own_steps(head), *rest], head)

    def _override(self, layer: DraftLayer, steps: list[Step], head: Word) -> DraftLayer:
        """Add words to the one member that they belong to."""
        members = members_of(layer)
        if len(members) > 1:
            steps = [word for step in steps for word in _as_words(step)]
        added: list[list[Step]] = [[] for _ in members]
        with _Together() as together:
            for step in steps:
                with together:
                    added[_owner(members, step, head)].append(step)
            for member, own in zip(members, added, strict=True):
                with together:
                    repeated = said_twice(fields_said(member.cls, [s for s in own if not isinstance(s, tuple)]))
                    if repeated is not None:
                        raise DiagnosticError(repeated)
        changed = iter([replace(m, steps=(*m.steps, *own)) for m, own in zip(members, added, strict=True)])
        return map_members(layer, lambda _: next(changed))


def _owner(members: list[Draft], step: Step, head: Word) -> int:
    """Which member a word of a layer belongs to."""
    if len(members) == 1:
        return 0
    if isinstance(step, tuple):
        message = f"`{head.ident.name}` has {len(members)} members, and a bare value could be any one's"
        raise DiagnosticError(error("ambiguous-override", message, step[0].span, help="name the field: d_state=16"))
    name = step.ident.name if isinstance(step, Word) else "top_k"
    ident = step.ident if isinstance(step, Word) else Ident(name=name, span=step.span)
    owners = [i for i, m in enumerate(members) if m.owns(Word(ident=ident, span=step.span))]
    if len(owners) == 1:
        return owners[0]
    if not owners:
        if isinstance(step, TopK):
            raise DiagnosticError(unexpected_topk(f"no member of `{head.ident.name}` chooses among experts", step.span))
        classes = list(dict.fromkeys(member.cls for member in members))
        raise DiagnosticError(unknown_field(ident, classes, f"`{head.ident.name}`"))
    what = "topK/E" if isinstance(step, TopK) else f"`{name}`"
    labels = [Label(members[i].origin, "has it") for i in owners]
    message = f"{what} could be meant for {len(owners)} members of `{head.ident.name}`"
    hint = "say it at the member, where the layer is put together"
    raise DiagnosticError(error("ambiguous-override", message, step.span, "", *_distinct(labels), help=hint))


def _distinct(labels: list[Label]) -> list[Label]:
    return list({label.span.start: label for label in labels}.values())


def _check_branch(branch: Branch, layer: DraftLayer) -> None:
    if len(layer) != 1:
        message = "a branch of `||` is one sublayer, and this is a sequence"
        hint = "the branches share one norm and one residual: put a single kind on each side"
        raise DiagnosticError(error("sequence-in-parallel", message, branch.span, help=hint))
    if layer[0].share is not None:
        message = "a shared module cannot be a branch of `||`"
        raise DiagnosticError(
            error("misplaced-share", message, branch.span, help="use it as a layer, or feed it with `<-`")
        )


def _fields_of_share(span: Span, name: str) -> Diagnostic:
    message = f"every use of `{name}` is the same, so a use takes no fields"
    return error("wrong-arguments", message, span, help=f"say them where it is defined: share {name}(...) = ...")


def _group_in_layer(branch: Branch, head: Word, name: str) -> Diagnostic:
    if len(branch.words) > 1 or head.args is not None:
        message = f"`{name}` is a group of layers, and takes no fields"
        hint = f"put them behind brackets, as a suffix: < {name} > d_state=32"
    else:
        message = f"`{name}` is a group of layers, and cannot be part of one"
        hint = "list it as an item of a block"
    return error("group-in-layer", message, branch.span, help=hint)


def _own_steps(word: Word) -> list[Step]:
    """What a word says in parentheses and tags about what it names."""
    steps: list[Step] = [word.args] if word.args else []
    return [*steps, *(tag for tag in word.tags if isinstance(tag, TopK))]


def _as_words(step: Step) -> list[Step]:
    """Arguments as words beside the name, where they name their field: `pair(d_state=16)` is `pair d_state=16`."""
    return list(map(_as_word, step)) if isinstance(step, tuple) else [step]


def _as_word(arg: Arg) -> Step:
    if isinstance(arg.value, TopK):
        return arg.value
    if arg.name is not None:
        return Word(ident=arg.name, value=arg.value, span=arg.span)
    if isinstance(arg.value, Name):
        return Word(ident=arg.value.ident, args=arg.value.args, span=arg.span)
    return (arg,)


class _Together:
    """Findings of several attempts, raised at once when the outermost `with` ends."""

    def __init__(self) -> None:
        self._depth = 0
        self._failed = False
        self._found: list[Diagnostic] = []

    def __enter__(self) -> _Together:
        self._depth += 1
        return self

    def __exit__(self, kind: object, failure: BaseException | None, trace: object) -> bool:
        self._depth -= 1
        caught = isinstance(failure, DiagnosticError)
        if isinstance(failure, DiagnosticError):
            self._failed = True
            self._found += failure.diagnostics
        if self._depth == 0 and self._failed and (failure is None or caught):
            raise DiagnosticError(*self._found) from None
        return caught
