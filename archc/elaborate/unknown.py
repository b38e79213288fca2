"""What to say of a name that means nothing where it stands: the nearest one that would, or where it belongs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from archc.diagnostics import Diagnostic, Label, Span, error, nearest
from archc.elaborate.accepts import Owner, field_of, value_words
from archc.elaborate.settings import ModelSettings
from archc.grammar.tree import Ident
from archc.layers.kind import Kind, Part, fields_of
from archc.layers.words import either

MAX_LISTED = 16  # names in one line of help


def unknown_field(ident: Ident, owners: Sequence[Owner], owner: str, origin: Label | None = None) -> Diagnostic:
    """A word that no field of `owners` takes; `origin` is where the kind was named."""
    fields = {name: info for cls in owners for name, info in fields_of(cls).items()}
    near = nearest(ident.name, [*fields, *value_words(fields.values())])
    hint = _belongs(ident.name, owners) or (f"did you mean `{near}`?" if near else _listed("it has", fields))
    is_around = origin is None or origin.span.start <= ident.span.start < origin.span.end
    labels = [] if origin is None or is_around else [origin]
    return error("unknown-field", f"{owner} has no field `{ident.name}`", ident.span, "", *labels, help=hint)


def unknown_suffix(ident: Ident, names: Iterable[str]) -> Diagnostic:
    """A word behind a bracket that is no field of any layer and no channel mixer; `names` are bound by `let`."""
    fields = {name: info for kind in Kind.known.values() for name, info in fields_of(kind).items()}
    near = nearest(ident.name, [*fields, *value_words(fields.values()), *Kind.known, *names, "mlp"])
    hint = f"did you mean `{near}`?" if near else "a suffix is a channel mixer or a field: moe top2/16, window(2048)"
    return error("unknown-field", f"no layer has a field `{ident.name}`", ident.span, help=hint)


def unknown_layer(ident: Ident, names: Iterable[str], later: Span | None) -> Diagnostic:
    """A name that is no kind and not bound here; `later` is where it is, too late."""
    if later is not None:
        own = later.start <= ident.span.start < later.end
        message = f"`{ident.name}` is bound {'by this very statement' if own else 'only later'}"
        label = Label(Span(later.source, later.start, _line_end(later)), "bound here")
        hint = "a `let` or `share` sees the names before it; " + ("use another name" if own else "move it up")
        return error("unknown-layer", message, ident.span, "not known yet", label, help=hint)
    known = dict.fromkeys([*names, *Kind.known])
    message = f"there is no layer `{ident.name}`"
    near = nearest(ident.name, known)
    hint = f"did you mean `{near}`?" if near else _belongs_to_a_kind(ident.name) or _listed("there are", known)
    return error("unknown-layer", message, ident.span, help=hint)


def unknown_setting(ident: Ident) -> tuple[Diagnostic, str | None]:
    """The finding, and the setting that was probably meant."""
    near = nearest(ident.name, fields_of(ModelSettings))
    hint = f"did you mean `{near}`?" if near else _belongs_to_a_kind(ident.name)
    if ident.name in Kind.known:
        hint = f"layers stand in a block: block < {ident.name} >"
    hint = hint or _listed("the settings are", fields_of(ModelSettings))
    return error("unknown-setting", f"there is no setting `{ident.name}`", ident.span, help=hint), near


def _belongs(name: str, owners: Sequence[Owner]) -> str | None:
    """Where a word belongs that has a meaning, but not beside `owners`."""
    if not any(issubclass(owner, Kind) for owner in owners):
        return None
    if name in Kind.known:
        head = either(owner.keyword for owner in owners)
        return f"`{name}` is a layer: `{head} + {name}` is one layer of both, `{head}, {name}` are two"
    if name in fields_of(ModelSettings):
        return f"`{name}` is a setting of the model, and stands on a line of its own"
    return _belongs_to_a_kind(name)


def _belongs_to_a_kind(name: str) -> str | None:
    takers = {kind.keyword: info for kind in Kind.known.values() if (info := field_of(kind, name)) is not None}
    if not takers or len(takers) == len(Kind.known):
        return None
    if name in Part.known and name not in {info.name for info in takers.values()}:
        kind, info = next(iter(takers.items()))
        return f"`{name}` is a value of `{info.name}`, a field of `{kind}`: {kind} {name}(...)"
    return f"`{name}` is a field of {either((f'`{kind}`' for kind in takers), 'and')}"


def _listed(lead: str, names: Iterable[str]) -> str:
    shown = list(names)
    more = [f"{len(shown) - MAX_LISTED} more"] if len(shown) > MAX_LISTED else []
    return f"{lead} {either([*shown[:MAX_LISTED], *more], 'and')}"


def _line_end(span: Span) -> int:
    end = span.source.text.find("\n", span.start)
    return min(span.end, end if end >= 0 else span.end)
