"""Binding: the words of a spec to the fields of a layer kind, a part or the model's settings.

A word is a field of the target (`d_head=128`, `window(2048)`, `bias`, `rope none`), or names a part that exactly one
field takes (`gqa(32, 8)`). Later words override earlier ones; a composite value is replaced whole. What is wrong with
one word does not keep the others from being looked at: `build` raises all findings at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, TypeVar

from archc.diagnostics import Diagnostic, DiagnosticError, Label, Span, error, nearest
from archc.elaborate.accepts import Owner, accepts, example, expected, field_of, part_of, value_words
from archc.elaborate.constants import FUNCTIONS, Lookup
from archc.elaborate.said import Step, fields_said, said_twice, unexpected_topk
from archc.elaborate.settings import numeric_settings
from archc.elaborate.unknown import unknown_field
from archc.elaborate.values import MAX_SIZE, Bound, Converter
from archc.grammar.tree import Arg, Expr, Ident, Name, Setting, TopK, Word
from archc.layers.kind import FieldInfo, Kind, Part, fields_of

Target = TypeVar("Target", bound=Kind | Part)

MAX_NESTED = 16  # values inside values; `let` could nest them without end


@dataclass(frozen=True)
class Environment:
    """What the words of a spec may refer to.

    `lookup` answers names in constant expressions; `part_defaults` are parts given as settings, whose fields become the
    defaults of the same part elsewhere (a bare `rms` takes the eps of `norm`); `setting` gives a setting as a default,
    None where it is being bound just now; `expand` resolves a name bound by `let` to a kind and what was said about it;
    `warn` takes what is no error.
    """

    lookup: Lookup
    part_defaults: dict[type[Part], Part] = field(default_factory=dict)
    setting: Callable[[str], Bound | None] = lambda name: None
    expand: Callable[[Ident], tuple[type[Kind], tuple[Step, ...]] | None] = lambda ident: None
    warn: Callable[[Diagnostic], None] = lambda diagnostic: None


class Binder:
    """Collects the values of the fields of one target class."""

    def __init__(
        self, cls: Owner, env: Environment, span: Span, *, origin: Span | None = None, owner: str = "", depth: int = 0
    ) -> None:
        self.cls = cls
        self.env = env
        self.span = span
        self.origin = origin or span
        self.owner = owner or f"`{cls.keyword}`"
        self.bound: dict[str, Bound] = {}
        self.errors: list[Diagnostic] = []
        self.failed = False
        self._depth = depth
        self._values = Converter(env.lookup, env.warn, self._part, self._kind)

    # --- taking words ------------------------------------------------------------------------------

    def steps(self, steps: Iterable[Step]) -> Binder:
        """Everything that was said about the target, weakest first."""
        for step in steps:
            if isinstance(step, TopK):
                with self._collecting():
                    self.top_k(step)
            elif isinstance(step, Word):
                self.word(step)
            else:
                self.arguments(step)
        return self

    def arguments(self, args: Iterable[Arg]) -> None:
        """Arguments in parentheses: `name=value`, words, positional values, topK/E."""
        args = tuple(args)
        repeated = said_twice(fields_said(self.cls, (args,)))
        if repeated is not None:
            self.failed = True
            self.errors.append(repeated)
            return
        positional = iter(fields_of(self.cls).values())
        for arg in args:
            with self._collecting():
                self._argument(arg, positional)

    def _argument(self, arg: Arg, positional: Iterator[FieldInfo]) -> None:
        if isinstance(arg.value, TopK):
            if arg.name is not None:
                raise DiagnosticError(unexpected_topk(f"`{arg.name.name}` does not take topK/E", arg.value.span))
            self.top_k(arg.value)
        elif arg.name is not None:
            self._assign(arg.name, arg.value)
        elif isinstance(arg.value, Name) and field_of(self.cls, arg.value.ident.name):
            name = arg.value
            self._word(Word(ident=name.ident, args=name.args, span=arg.span))
        else:
            self._assign_positional(arg.value, next(positional, None))

    def word(self, word: Word | Setting) -> None:
        """One word beside the kind's own, or one setting."""
        with self._collecting():
            self._word(word)

    def _word(self, word: Word | Setting) -> None:
        info = field_of(self.cls, word.ident.name)
        is_named = info is not None and info.name == word.ident.name
        if info is None or (word.value is not None and not is_named):
            raise DiagnosticError(self._unknown(word.ident))
        if word.value is not None:
            self.bound[info.name] = self._values.convert(info, word.value)
        elif not is_named:
            self.bound[info.name] = self._part(Part.known[word.ident.name], word.args or (), word.span)
        elif word.args is not None:
            self.bound[info.name] = self._from_call(info, word.args, word.span)
        else:
            self.bound[info.name] = self._from_flag(info, word.span)
        for tag in word.tags:
            if isinstance(tag, TopK):
                self.top_k(tag)

    def top_k(self, tag: TopK) -> None:
        """`top2/16` sets `top_k` and `n_experts` of a target that has both."""
        if not {"top_k", "n_experts"} <= set(fields_of(self.cls)):
            raise DiagnosticError(unexpected_topk(f"{self.owner} does not choose among experts", tag.span))
        if max(tag.k, tag.n) > MAX_SIZE:
            message = f"`n_experts` is at most {MAX_SIZE:,}"
            raise DiagnosticError(error("too-large", message, tag.span, help="check the number"))
        self.bound["top_k"] = Bound(tag.k, tag.span)
        self.bound["n_experts"] = Bound(tag.n, tag.span)

    # --- giving the instance -----------------------------------------------------------------------

    def build(self, expected_type: type[Target]) -> Target:
        """The instance, with defaults for what was not said. Raises DiagnosticError with every finding."""
        values: dict[str, Any] = {}
        inherited = self.env.part_defaults.get(self.cls) if issubclass(self.cls, Part) else None
        for name, info in fields_of(self.cls).items():
            if name in self.bound:
                values[info.attribute] = self.bound[name].value
            elif inherited is not None:
                values[info.attribute] = getattr(inherited, info.attribute)
            elif info.required and not self.failed:
                with self._collecting():
                    values[info.attribute] = self._required(info).value
        if self.failed:
            raise DiagnosticError(*self.errors)
        instance = self.cls(**values)
        assert isinstance(instance, expected_type)
        return instance

    def span_of(self, path: str, *, exactly: bool = False) -> Span | None:
        """Where the field `path` ("heads.n_kv_heads") was said, or else what holds it."""
        bound: dict[str, Bound] = self.bound
        found: Span | None = None
        for name in path.split(".") if path else ():
            if name not in bound:
                return None if exactly else found
            found = bound[name].span
            bound = bound[name].inner
        return found

    def _required(self, info: FieldInfo) -> Bound:
        """The value of a field that nobody gave: a setting's, or an error."""
        setting = info.metadata.get("setting")
        given = self.env.setting(setting) if setting else None
        if given is not None and given.value is not None:
            self.bound[info.name] = given
            return given
        labels = [Label(self.origin, "defined here")] if self.origin != self.span else []
        labels += [Label(given.span, f"so there is no `{setting}` to take")] if given is not None else []
        message = f"{self.owner} needs `{info.name}`: {info.doc}"
        raise DiagnosticError(
            error("missing-field", message, self.span, "", *labels, help=f"add for example {example(info)}")
        )

    # --- one value ---------------------------------------------------------------------------------

    @contextmanager
    def _collecting(self) -> Iterator[None]:
        try:
            yield
        except DiagnosticError as failure:
            self.failed = True
            self.errors += failure.diagnostics

    def _assign(self, ident: Ident, value: Expr) -> None:
        info = fields_of(self.cls).get(ident.name)
        if info is None:
            raise DiagnosticError(self._unknown(ident))
        self.bound[ident.name] = self._values.convert(info, value)

    def _assign_positional(self, value: Expr, info: FieldInfo | None) -> None:
        if isinstance(value, Name) and not self._may_be_value(value, info):
            raise DiagnosticError(self._unknown(value.ident))
        if info is None or info.metadata.get("late"):
            names = [name for name, info in fields_of(self.cls).items() if not info.metadata.get("late")]
            message = f"{self.owner} takes no more than {len(names)} value{'s' * (len(names) != 1)}"
            hint = f"in order they are {', '.join(names)}" if names else None
            raise DiagnosticError(error("wrong-arguments", message, value.span, "one too many", help=hint))
        self.bound[info.name] = self._values.convert(info, value)

    def _may_be_value(self, value: Name, info: FieldInfo | None) -> bool:
        """Whether a name that is no word of the target can be meant as the value of its next field."""
        name = value.ident.name
        if info is None or name in FUNCTIONS or name in numeric_settings() or self._values.is_value(info, value):
            return True
        near = nearest(name, [*fields_of(self.cls), *value_words(fields_of(self.cls).values())])
        return value.args is not None and near is None and not {int, Fraction}.isdisjoint(accepts(info))

    def _from_flag(self, info: FieldInfo, span: Span) -> Bound:
        if bool in accepts(info):
            return Bound(True, span)
        part = part_of(info, info.name)
        if part is not None:
            return self._part(part, (), span)
        written = f", as in `{example(info)}`" if self.cls.keyword else ""
        message = f"`{info.name}` needs a value: {info.doc}"
        raise DiagnosticError(error("missing-value", message, span, help=expected(info) + written))

    def _from_call(self, info: FieldInfo, args: tuple[Arg, ...], span: Span) -> Bound:
        part = part_of(info, info.name)
        if part is not None:
            return self._part(part, args, span)
        if len(args) == 1 and args[0].name is None and not isinstance(args[0].value, TopK):
            return self._values.convert(info, args[0].value)
        raise DiagnosticError(error("wrong-arguments", f"`{info.name}` takes one value", span, help=expected(info)))

    def _part(self, cls: type[Part], args: tuple[Arg, ...], span: Span) -> Bound:
        binder = self._inner(cls, span)
        binder.arguments(args)
        return Bound(binder.build(cls), span, binder.bound)

    def _kind(self, value: Name, family: type[Kind]) -> Bound | None:
        """The value `swiglu(1856)`, or a name that `let` gave to one; None if it is no kind of the family."""
        cls, steps = self.env.expand(value.ident) or (Kind.known.get(value.ident.name), ())
        if cls is None or not issubclass(cls, family):
            return None
        binder = self._inner(cls, value.span).steps((*steps, value.args or ()))
        return Bound(binder.build(cls), value.span, binder.bound)

    def _inner(self, cls: Owner, span: Span) -> Binder:
        if self._depth >= MAX_NESTED:
            message = f"values are nested more than {MAX_NESTED} deep"
            raise DiagnosticError(error("nesting-too-deep", message, span, help="describe the value with fewer `let`s"))
        return Binder(cls, self.env, span, depth=self._depth + 1)

    def _unknown(self, ident: Ident) -> Diagnostic:
        origin = Label(self.origin, "defined here" if self.origin != self.span else "")
        return unknown_field(ident, [self.cls], self.owner, origin)
