"""Reading the settings of a spec: bound on demand, so that any may refer to any other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction

from archc.diagnostics import Diagnostic, DiagnosticError, Label, Report, Span, error, nearest
from archc.elaborate.bind import Binder, Environment
from archc.elaborate.said import Step, counted, misplaced_every
from archc.elaborate.settings import ModelSettings, numeric_settings
from archc.elaborate.unknown import unknown_setting
from archc.elaborate.values import Bound
from archc.grammar.tree import Arg, Ident, Name, Setting, TopK
from archc.layers.kind import Kind, Part, fields_of
from archc.layers.words import either

Expand = Callable[[Ident], tuple[type[Kind], tuple[Step, ...]] | None]


class SettingsReader:
    """Binds settings on demand and finds cycles. A setting of a later source, as --set is, wins."""

    def __init__(self, statements: Sequence[Setting], end: Span, report: Report, expand: Expand) -> None:
        self.report = report
        self.end = end
        self.statements: dict[str, Setting] = {}
        self.failed: set[str] = set()
        for statement in statements:
            self._take(statement)
        self.env = Environment(self._lookup, {}, self._setting, expand, report.add)
        self.binder = Binder(ModelSettings, self.env, end, owner="a spec")
        self._running: list[str] = []

    def read(self) -> ModelSettings | None:
        """All settings; None if one is missing or wrong, which is in the report then."""
        for name in ("norm", *self.statements):
            self._bind(name)
        required = [info.name for info in fields_of(ModelSettings).values() if info.required]
        missing = [name for name in required if name not in self.statements and name not in self.failed]
        if missing:
            self.report.add(_missing(missing, self.end))
        if missing or self.failed:
            return None
        return self.binder.build(ModelSettings)

    def span_of(self, name: str) -> Span | None:
        """Where a setting was said."""
        return self.binder.span_of(name)

    def is_sure_of(self, name: str) -> bool:
        """Whether a setting was given and could be read."""
        return name in self.binder.bound

    def _take(self, statement: Setting) -> None:
        name = statement.ident.name
        if name not in fields_of(ModelSettings):
            finding, meant = unknown_setting(statement.ident)
            self.report.add(finding)
            self.failed |= {meant} if meant else set()
        elif name in self.statements and self.statements[name].span.source is statement.span.source:
            earlier = Label(self.statements[name].ident.span, "first said here")
            message = f"`{name}` is given twice"
            self.report.add(
                error("set-twice", message, statement.ident.span, "again", earlier, help="keep one of the two")
            )
        else:
            self.statements[name] = _with_experts(statement)

    def _bind(self, name: str) -> Bound | None:
        statement = self.statements.get(name)
        if statement is None or name in self.failed:
            return None
        if name not in self.binder.bound:
            self._running.append(name)
            try:
                self._say(statement)
            except DiagnosticError as failure:
                self.report.add(*failure.diagnostics)
                self.failed.add(name)
                return None
            finally:
                self._running.pop()
            value = self.binder.bound[name].value
            if isinstance(value, Part):
                self.env.part_defaults[type(value)] = value
        return self.binder.bound[name]

    def _say(self, statement: Setting) -> None:
        every = counted(statement)
        if every is not None:
            raise DiagnosticError(misplaced_every(every))
        binder = Binder(ModelSettings, self.env, self.end, owner="a spec")
        binder.word(statement)
        if binder.failed:
            raise DiagnosticError(*binder.errors)
        self.binder.bound |= binder.bound

    def _setting(self, name: str) -> Bound | None:
        """A setting as the default of a field; None while it is being bound itself."""
        if name in self._running:
            return None
        bound = self._bind(name)
        if bound is None:
            raise DiagnosticError()  # missing or wrong, which is said elsewhere
        return bound

    def _lookup(self, name: Name) -> Fraction:
        word = name.ident.name
        if word not in numeric_settings():
            numbers = [known for known in numeric_settings() if known in self.statements] or list(numeric_settings())
            near = nearest(word, numbers)
            hint = f"did you mean `{near}`?" if near else f"constants may name {either(numbers, 'and')}"
            raise DiagnosticError(error("unknown-name", f"`{word}` is not a number here", name.span, help=hint))
        if word in self._running:
            raise DiagnosticError(self._circle(word, name.span))
        bound = self._bind(word)
        if bound is None and (word in self.failed or fields_of(ModelSettings)[word].required):
            raise DiagnosticError()  # missing or wrong, which is said elsewhere
        if bound is None or bound.value is None:
            message = f"`{word}` is used here, and has no value"
            labels = [Label(bound.span, "none")] if bound else []
            raise DiagnosticError(error("unset-name", message, name.span, "", *labels, help=f"add a line: {word} 4096"))
        return Fraction(bound.value)

    def _circle(self, word: str, at: Span) -> Diagnostic:
        through = self._running[self._running.index(word) :]
        labels = [Label(self.statements[name].ident.span, f"needs `{word}`") for name in through[1:]]
        self.failed |= set(through)
        message = f"`{word}` is defined by itself"
        return error("circular-setting", message, at, "", *labels, help="give one of them a number")


def _with_experts(statement: Setting) -> Setting:
    """`mlp moe(...) top2/16`: topK/E belongs to the value."""
    value, tags = statement.value, [tag for tag in statement.tags if isinstance(tag, TopK)]
    if not isinstance(value, Name) or not tags:
        return statement
    args = (*(value.args or ()), *(Arg(name=None, value=tag, span=tag.span) for tag in tags))
    rest = tuple(tag for tag in statement.tags if not isinstance(tag, TopK))
    return replace(statement, value=replace(value, args=args), tags=rest)


def _missing(names: list[str], end: Span) -> Diagnostic:
    infos = fields_of(ModelSettings)
    what = either((f"`{name}`" for name in names), "and")
    message = f"a spec needs {what}" + (f": {infos[names[0]].doc}" if len(names) == 1 else "")
    lines = "\n".join(infos[name].metadata["example"] for name in names)
    return error("missing-setting", message, end, help=f"add for example\n{lines}")
