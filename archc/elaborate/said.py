"""What the words of a spec say before anything is bound: which fields they set, twice perhaps, or out of place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from archc.diagnostics import Diagnostic, Label, Span, error
from archc.elaborate.accepts import Owner, field_of
from archc.elaborate.constants import FUNCTIONS
from archc.elaborate.settings import numeric_settings
from archc.grammar.tree import Arg, At, Every, Name, Setting, TopK, Word
from archc.layers.kind import fields_of

Step = Word | tuple[Arg, ...] | TopK


def fields_said(cls: Owner, steps: Iterable[Step]) -> list[tuple[str, Span]]:
    """Which fields of `cls` these steps set, and where; words that mean nothing are left out."""
    found: list[tuple[str, Span]] = []
    for step in steps:
        if isinstance(step, TopK):
            found.append(("top_k", step.span))
        elif isinstance(step, Word):
            info = field_of(cls, step.ident.name)
            found += [(info.name, step.span)] if info else []
            found += [("top_k", tag.span) for tag in step.tags if isinstance(tag, TopK)]
        else:
            positional = iter(fields_of(cls))
            found += [(name, arg.span) for arg in step if (name := _field_said(cls, arg, positional)) is not None]
    return found


def _field_said(cls: Owner, arg: Arg, positional: Iterator[str]) -> str | None:
    if isinstance(arg.value, TopK):
        return "top_k"
    if arg.name is not None:
        return arg.name.name if arg.name.name in fields_of(cls) else None
    if isinstance(arg.value, Name) and arg.value.ident.name not in (*numeric_settings(), *FUNCTIONS):
        info = field_of(cls, arg.value.ident.name)
        return info.name if info else None  # a value by name, or nothing: binding finds out
    return next(positional, None)


def said_twice(said: Iterable[tuple[str, Span]]) -> Diagnostic | None:
    """The finding that one list of words sets a field twice, if it does."""
    first: dict[str, Span] = {}
    for name, span in said:
        if name in first:
            earlier = Label(first[name], "first said here")
            message = "topK/E is given twice" if name == "top_k" else f"`{name}` is given twice"
            return error("set-twice", message, span, "again", earlier, help="keep one of the two")
        first[name] = span
    return None


def counted(word: Word | Setting) -> Span | None:
    """Where `every` or `at` stands in a word that has no bracket of layers before it."""
    return next((tag.span for tag in word.tags if isinstance(tag, Every | At)), None)


def misplaced_every(span: Span) -> Diagnostic:
    """`every` or `at` where there are no layers to count."""
    message = "`every` and `at` count the layers of a bracket, and there is none before this"
    hint = "write it behind the bracket: block x4 < mamba x7, attn > moe every 2 top2/16"
    return error("misplaced-every", message, span, help=hint)


def unexpected_topk(message: str, span: Span) -> Diagnostic:
    return error("unexpected-topk", message, span, help="topK/E belongs to moe, as in `moe top2/16`")
