"""Words beside a layer of several members: each belongs to the one that owns the field; and what is no such layer."""

from __future__ import annotations

from dataclasses import replace

from archc.diagnostics import Diagnostic, DiagnosticError, Label, Span, error
from archc.elaborate.draft import Draft, DraftLayer, map_members, members_of
from archc.elaborate.findings import Together
from archc.elaborate.said import Step, fields_said, said_twice, unexpected_topk
from archc.elaborate.unknown import unknown_field
from archc.grammar.tree import Arg, Branch, Ident, Name, TopK, Word

MAX_WORDS = 256  # about one kind; each use of a `let` may add some


def override(layer: DraftLayer, steps: list[Step], head: Word) -> DraftLayer:
    """Add words to the one member that they belong to."""
    members = members_of(layer)
    if len(members) > 1:
        steps = [word for step in steps for word in _as_words(step)]
    added: list[list[Step]] = [[] for _ in members]
    with Together() as together:
        for step in steps:
            with together:
                added[_owner(members, step, head)].append(step)
        for member, own in zip(members, added, strict=True):
            with together:
                repeated = said_twice(fields_said(member.cls, [s for s in own if not isinstance(s, tuple)]))
                if repeated is not None:
                    raise DiagnosticError(repeated)
    if any(len(member.steps) + len(own) > MAX_WORDS for member, own in zip(members, added, strict=True)):
        message = f"more than {MAX_WORDS} words describe one kind"
        raise DiagnosticError(error("too-large", message, head.span, help="say what holds in the end, once"))
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


def check_branch(branch: Branch, layer: DraftLayer) -> None:
    if len(layer) != 1:
        message = "a branch of `||` is one sublayer, and this is a sequence"
        hint = "the branches share one norm and one residual: put a single kind on each side"
        raise DiagnosticError(error("sequence-in-parallel", message, branch.span, help=hint))
    if layer[0].share is not None:
        message = "a shared module cannot be a branch of `||`"
        raise DiagnosticError(
            error("misplaced-share", message, branch.span, help="use it as a layer, or feed it with `<-`")
        )


def fields_of_share(span: Span, name: str) -> Diagnostic:
    message = f"every use of `{name}` is the same, so a use takes no fields"
    return error("wrong-arguments", message, span, help=f"say them where it is defined: share {name}(...) = ...")


def group_in_layer(branch: Branch, head: Word, name: str) -> Diagnostic:
    if len(branch.words) > 1 or head.args is not None:
        message = f"`{name}` is a group of layers, and takes no fields"
        hint = f"put them behind brackets, as a suffix: < {name} > d_state=32"
    else:
        message = f"`{name}` is a group of layers, and cannot be part of one"
        hint = "list it as an item of a block"
    return error("group-in-layer", message, branch.span, help=hint)


def own_steps(word: Word) -> list[Step]:
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
