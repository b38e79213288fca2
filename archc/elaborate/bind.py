"""Binding: the words of a spec to the fields of a layer kind, a part or the model's settings.

A word is a field of the target (`d_head=128`, `window(2048)`, `bias`, `rope none`), or names a part that exactly one
field takes (`gqa(32, 8)`). Later words override earlier ones; a composite value is replaced whole.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from archc.diagnostics import DiagnosticError, Label, Span, error, nearest
from archc.elaborate.constants import Lookup, evaluate
from archc.grammar.tree import Arg, Expr, Ident, ListExpr, Name, NoneLiteral, Range, Setting, TopK, Word
from archc.layers.kind import FieldInfo, Kind, Part, fields_of

Target = TypeVar("Target", bound=Kind | Part)


@dataclass(frozen=True)
class Environment:
    """What the words of a spec may refer to.

    `lookup` answers names in constant expressions; `part_defaults` are parts given as settings, whose fields become the
    defaults of the same part elsewhere (a bare `rms` takes the eps of `norm`); `setting` gives a setting as a default;
    `expand` resolves a name bound by `let` to the words that it stands for.
    """

    lookup: Lookup
    part_defaults: dict[type[Part], Part] = field(default_factory=dict)
    setting: Callable[[str], Any] = lambda name: None
    expand: Callable[[Ident], tuple[Word, ...] | None] = lambda ident: None


@dataclass(frozen=True)
class Bound:
    """A field's value and where it was said; `inner` holds the same for a composite value."""

    value: Any
    span: Span
    inner: dict[str, Bound] = field(default_factory=dict)


class Binder:
    """Collects the values of the fields of one target class."""

    def __init__(self, cls: type[Kind] | type[Part], env: Environment, span: Span) -> None:
        self.cls = cls
        self.env = env
        self.span = span
        self.bound: dict[str, Bound] = {}
        self._positional = 0

    # --- taking words ------------------------------------------------------------------------------

    def owns(self, word: Word) -> bool:
        """Whether `word` says something about this target."""
        return word.ident.name in fields_of(self.cls) or self._field_for_part(word.ident.name) is not None

    def arguments(self, args: Iterable[Arg]) -> None:
        """Arguments in parentheses: `name=value`, words, positional values, topK/E."""
        for arg in args:
            if isinstance(arg.value, TopK):
                self.top_k(arg.value)
            elif arg.name is not None:
                self._assign(arg.name, arg.value, arg.span)
            elif isinstance(arg.value, Name) and self._is_word(arg.value):
                name = arg.value
                self.word(Word(ident=name.ident, args=name.args, span=arg.span))
            else:
                self._assign_positional(arg.value, arg.span)

    def word(self, word: Word | Setting) -> None:
        """One word beside the kind's own, or one setting."""
        name = word.ident.name
        info = fields_of(self.cls).get(name)
        if info is None:
            part_field = self._field_for_part(name)
            if part_field is None or word.value is not None:
                raise DiagnosticError(self._unknown(word.ident))
            self.bound[part_field.name] = self._part(Part.known[name], word.args or (), word.span)
        elif word.value is not None:
            self._assign(word.ident, word.value, word.span)
        elif word.args is not None:
            self.bound[name] = self._from_call(info, word.args, word.span)
        else:
            self.bound[name] = self._from_flag(info, word.span)
        for tag in word.tags:
            if isinstance(tag, TopK):
                self.top_k(tag)

    def top_k(self, tag: TopK) -> None:
        """`top2/16` sets `top_k` and `n_experts` of a target that has both."""
        if not {"top_k", "n_experts"} <= set(fields_of(self.cls)):
            message = f"`{self.cls.keyword}` does not choose among experts"
            raise DiagnosticError(error("unexpected-topk", message, tag.span, help="topK/E belongs to moe"))
        self.bound["top_k"] = Bound(tag.k, tag.span)
        self.bound["n_experts"] = Bound(tag.n, tag.span)

    # --- giving the instance -----------------------------------------------------------------------

    def build(self, expected: type[Target]) -> Target:
        """The instance, with defaults for what was not said."""
        values: dict[str, Any] = {}
        inherited = self.env.part_defaults.get(self.cls)  # type: ignore[arg-type]
        for name, info in fields_of(self.cls).items():
            if name in self.bound:
                values[info.attribute] = self.bound[name].value
            elif inherited is not None:
                values[info.attribute] = getattr(inherited, info.attribute)
            elif info.required:
                values[info.attribute] = self._from_setting(info)
        instance = self.cls(**values)
        assert isinstance(instance, expected)
        return instance

    def span_of(self, path: str) -> Span | None:
        """Where the field `path` ("heads.n_kv_heads") was said."""
        bound: dict[str, Bound] = self.bound
        found: Span | None = None
        for name in path.split("."):
            if name not in bound:
                return None
            found = bound[name].span
            bound = bound[name].inner
        return found

    def _from_setting(self, info: FieldInfo) -> Any:
        setting = self.cls.__dataclass_fields__[info.attribute].metadata.get("setting")
        value = self.env.setting(setting) if setting else None
        if value is not None:
            return value
        if setting:
            message = f"`{self.cls.keyword}` takes its `{info.name}` from the setting `{setting}`, and there is none"
            raise DiagnosticError(error("missing-field", message, self.span, help=f"give it: {info.name}=swiglu(1024)"))
        if info.name in ("top_k", "n_experts"):
            message = f"`{self.cls.keyword}` needs to know how many experts a token goes to"
            raise DiagnosticError(error("missing-field", message, self.span, help="add for example top2/16"))
        message = f"`{self.cls.keyword or self.cls.__name__}` needs `{info.name}`: {info.doc}"
        examples = {"heads": "gqa(32, 8)"}
        example = examples.get(info.name, f"{info.name}=128")
        raise DiagnosticError(error("missing-field", message, self.span, help=f"add for example {example}"))

    # --- one value ---------------------------------------------------------------------------------

    def _assign(self, ident: Ident, value: Expr | TopK, span: Span) -> None:
        info = fields_of(self.cls).get(ident.name)
        if info is None:
            raise DiagnosticError(self._unknown(ident))
        if isinstance(value, TopK):
            raise DiagnosticError(error("unexpected-topk", f"`{ident.name}` does not take topK/E", value.span))
        self.bound[ident.name] = self._convert(info, value)

    def _assign_positional(self, value: Expr | TopK, span: Span) -> None:
        names = list(fields_of(self.cls))
        if self._positional >= len(names):
            message = f"`{self.cls.keyword}` takes at most {len(names)} values"
            raise DiagnosticError(error("too-many-values", message, span))
        name = names[self._positional]
        self._positional += 1
        assert not isinstance(value, TopK)
        self.bound[name] = self._convert(fields_of(self.cls)[name], value)

    def _from_flag(self, info: FieldInfo, span: Span) -> Bound:
        accepted = accepts(info.type)
        if bool in accepted:
            return Bound(True, span)
        if info.name in Part.known and any(_is_part(t) and issubclass(Part.known[info.name], t) for t in accepted):
            return self._part(Part.known[info.name], (), span)
        message = f"`{info.name}` needs a value: {info.doc}" if info.doc else f"`{info.name}` needs a value"
        raise DiagnosticError(error("missing-value", message, span, help=f"write {info.name}=..."))

    def _from_call(self, info: FieldInfo, args: tuple[Arg, ...], span: Span) -> Bound:
        families = [t for t in accepts(info.type) if _is_part(t)]
        if info.name in Part.known and any(issubclass(Part.known[info.name], t) for t in families):
            return self._part(Part.known[info.name], args, span)
        if len(args) == 1 and args[0].name is None and not isinstance(args[0].value, TopK):
            return self._convert(info, args[0].value)
        raise DiagnosticError(error("wrong-arguments", f"`{info.name}` takes one value", span))

    def _convert(self, info: FieldInfo, value: Expr) -> Bound:
        accepted = accepts(info.type)
        if isinstance(value, NoneLiteral):
            if type(None) not in accepted:
                raise DiagnosticError(error("not-optional", f"`{info.name}` cannot be none", value.span))
            return Bound(None, value.span)
        if isinstance(value, Name):
            named = self._convert_name(info, value, accepted)
            if named is not None:
                return named
        if int in accepted:
            return Bound(self._integer(info, value), value.span)
        if tuple[str, ...] in accepted and isinstance(value, ListExpr):
            return Bound(tuple(self._list_word(info, item) for item in value.items), value.span)
        if Fraction in accepted:
            return Bound(evaluate(value, self.env.lookup), value.span)
        raise DiagnosticError(
            error("wrong-value", f"`{info.name}` does not take this value", value.span, help=_expected(info, accepted))
        )

    def _convert_name(self, info: FieldInfo, value: Name, accepted: tuple[Any, ...]) -> Bound | None:
        """A name as a value: true or false, a choice, a part, a kind; None if it can only be a constant."""
        name = value.ident.name
        if bool in accepted and value.args is None and name in ("true", "false"):
            return Bound(name == "true", value.span)
        choices = [choice for t in accepted if get_origin(t) is Literal for choice in get_args(t)]
        if value.args is None and name in choices:
            return Bound(name, value.span)
        for family in accepted:
            if _is_part(family) and name in Part.known and issubclass(Part.known[name], family):
                return self._part(Part.known[name], value.args or (), value.span)
            if _is_kind(family):
                kind = self._kind(value, family)
                if kind is not None:
                    return kind
        if int in accepted or Fraction in accepted:
            return None
        known = [*choices, *_words(accepted)]
        near = nearest(name, known)
        hint = f"did you mean `{near}`?" if near else _expected(info, accepted)
        raise DiagnosticError(
            error("wrong-value", f"`{name}` is not a value of `{info.name}`", value.ident.span, help=hint)
        )

    def _list_word(self, info: FieldInfo, item: Range) -> str:
        if isinstance(item.start, Name) and item.start.args is None and item.stop is None:
            return item.start.ident.name
        raise DiagnosticError(error("wrong-value", f"`{info.name}` takes a list of names", item.span))

    def _integer(self, info: FieldInfo, value: Expr) -> int:
        number = evaluate(value, self.env.lookup)
        if number.denominator != 1:
            message = f"`{info.name}` counts whole things, and {float(number):g} is not whole"
            raise DiagnosticError(error("not-an-integer", message, value.span, help="ceil(...) and floor(...) round"))
        if number < 1:
            message = f"`{info.name}` must be at least 1, not {number}"
            raise DiagnosticError(error("too-small", message, value.span))
        return int(number)

    def _part(self, cls: type[Part], args: tuple[Arg, ...], span: Span) -> Bound:
        binder = Binder(cls, self.env, span)
        binder.arguments(args)
        return Bound(binder.build(cls), span, binder.bound)

    def _kind(self, value: Name, family: type[Kind]) -> Bound | None:
        words = self.env.expand(value.ident)
        if words is None:
            words = (Word(ident=value.ident, args=value.args, span=value.span),)
        cls = Kind.known.get(words[0].ident.name)
        if cls is None or not issubclass(cls, family):
            return None
        binder = Binder(cls, self.env, value.span)
        for i, word in enumerate(words):
            if i == 0:
                binder.arguments(word.args or ())
            else:
                binder.word(word)
        return Bound(binder.build(cls), value.span, binder.bound)

    # --- names -------------------------------------------------------------------------------------

    def _is_word(self, value: Name) -> bool:
        name = value.ident.name
        return name in fields_of(self.cls) or self._field_for_part(name) is not None

    def _field_for_part(self, name: str) -> FieldInfo | None:
        """The one field that takes the part `name`."""
        if name not in Part.known:
            return None
        takers = [
            info
            for info in fields_of(self.cls).values()
            if any(_is_part(t) and issubclass(Part.known[name], t) for t in accepts(info.type))
        ]
        return takers[0] if len(takers) == 1 else None

    def _unknown(self, ident: Ident) -> Any:
        known = [*fields_of(self.cls), *_words([t for i in fields_of(self.cls).values() for t in accepts(i.type)])]
        near = nearest(ident.name, known)
        owner = f"`{self.cls.keyword}`" if self.cls.keyword else "a spec"
        hint = f"did you mean `{near}`?" if near else f"{owner} has {', '.join(fields_of(self.cls))}"
        label = Label(self.span, "of this") if self.span != ident.span and self.cls.keyword else None
        return error(
            "unknown-field",
            f"{owner} has no field `{ident.name}`",
            ident.span,
            "unknown",
            *([label] if label else []),
            help=hint,
        )


def accepts(annotation: Any) -> tuple[Any, ...]:
    """The alternatives of a field's type: `int | None` is (int, NoneType)."""
    if isinstance(annotation, types.UnionType) or get_origin(annotation) is Union:
        return get_args(annotation)
    return (annotation,)


def _is_part(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Part)


def _is_kind(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Kind)


def _words(accepted: Iterable[Any]) -> list[str]:
    """The words that name a value of these types."""
    found: list[str] = []
    for t in accepted:
        if _is_part(t):
            found += [word for word, cls in Part.known.items() if issubclass(cls, t)]
        elif _is_kind(t):
            found += [word for word, cls in Kind.known.items() if issubclass(cls, t)]
    return found


def _expected(info: FieldInfo, accepted: tuple[Any, ...]) -> str:
    names = {int: "an integer", Fraction: "a number", bool: "true or false", type(None): "none"}
    options = [names[t] for t in accepted if t in names]
    options += [choice for t in accepted if get_origin(t) is Literal for choice in get_args(t)]
    options += [f"{word}(...)" for word in _words(accepted)]
    return f"`{info.name}` takes " + " or ".join(options)
