"""The settings of a model: what belongs to the whole and not to a layer. They are free of order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal

from archc.diagnostics import DiagnosticError, Label, Report, Span, error, nearest
from archc.elaborate.bind import Binder, Bound, Environment
from archc.grammar.tree import Name, Setting
from archc.layers.kind import ChannelMixer, Norm, Part, fields_of
from archc.layers.parts import RMS


@dataclass(frozen=True, kw_only=True)
class Embed(Part, keyword="embed"):
    """The embedding."""

    scale: Fraction | None = field(default=None, metadata={"doc": "factor on the embedded tokens"})
    tied: bool = field(default=False, metadata={"doc": "the head uses the embedding's weight"})


@dataclass(frozen=True, kw_only=True)
class Logits(Part, keyword="logits"):
    """The logits."""

    scale: Fraction | None = field(default=None, metadata={"doc": "factor on the logits"})
    cap: Fraction | None = field(default=None, metadata={"doc": "soft cap: cap * tanh(logits / cap)"})


@dataclass(frozen=True, kw_only=True)
class Residual(Part, keyword="residual"):
    """The residual stream."""

    dtype: Literal["fp32"] | None = field(default=None, metadata={"doc": "fp32 keeps the stream in fp32"})
    branch: Fraction | None = field(default=None, metadata={"doc": "factor on what each sublayer adds"})


@dataclass(frozen=True, kw_only=True)
class ModelSettings(Part):
    """What the statements of a spec set."""

    vocab: int = field(metadata={"doc": "size of the vocabulary, padding included"})
    d_model: int = field(metadata={"doc": "width of the residual stream"})
    context: int | None = field(default=None, metadata={"doc": "longest context, in tokens"})
    norm: Norm = field(default=RMS(), metadata={"doc": "norm before every sublayer and at the end"})
    mlp: ChannelMixer | None = field(metadata={"doc": "channel mixer of every layer that holds none"})
    tied: bool = field(default=False, metadata={"doc": "the head uses the embedding's weight"})
    embed: Embed = field(default=Embed(), metadata={"doc": "fields of the embedding"})
    logits: Logits = field(default=Logits(), metadata={"doc": "fields of the logits"})
    residual: Residual = field(default=Residual(), metadata={"doc": "fields of the residual stream"})

    @property
    def is_tied(self) -> bool:
        return self.tied or self.embed.tied


class SettingsReader:
    """Binds settings on demand, so that any may refer to any other, and finds cycles."""

    def __init__(self, statements: Sequence[Setting], end: Span, report: Report, expand: Any) -> None:
        self.report = report
        self.end = end
        self.statements: dict[str, Setting] = {}
        for statement in statements:
            self._take(statement)
        self.env = Environment(self._lookup, {}, self._setting, expand)
        self.binder = Binder(ModelSettings, self.env, end)
        self._running: list[str] = []
        self._failed: set[str] = set()

    def read(self) -> ModelSettings:
        """All settings. Raises DiagnosticError if one is missing or wrong (others are in the report)."""
        for name in ("norm", *self.statements):
            self._bind(name)
        for name in ("vocab", "d_model", "mlp"):
            if name not in self.statements:
                self.report.add(_missing(name, self.end))
        self.report.raise_if_errors()
        return self.binder.build(ModelSettings)

    def span_of(self, path: str) -> Span | None:
        return self.binder.span_of(path)

    def _take(self, statement: Setting) -> None:
        name = statement.ident.name
        if name not in fields_of(ModelSettings):
            near = nearest(name, fields_of(ModelSettings))
            hint = f"did you mean `{near}`?" if near else f"there are {', '.join(fields_of(ModelSettings))}"
            message = f"there is no setting `{name}`"
            self.report.add(error("unknown-setting", message, statement.ident.span, help=hint))
        elif name in self.statements and self.statements[name].span.source is statement.span.source:
            earlier = Label(self.statements[name].span, "first said here")
            message = f"`{name}` is set twice"
            self.report.add(error("set-twice", message, statement.span, "again", earlier, help="keep one of the two"))
        else:
            self.statements[name] = statement  # a later source, as --set is, wins

    def _bind(self, name: str) -> Bound | None:
        statement = self.statements.get(name)
        if statement is None or name in self._failed:
            return None
        if name not in self.binder.bound:
            self._running.append(name)
            try:
                self.binder.word(statement)
            except DiagnosticError as failure:
                self.report.add(*failure.diagnostics)
                self._failed.add(name)
                return None
            finally:
                self._running.pop()
            value = self.binder.bound[name].value
            if isinstance(value, Part):
                self.env.part_defaults[type(value)] = value
        return self.binder.bound[name]

    def _setting(self, name: str) -> Any:
        bound = self._bind(name)
        return bound.value if bound else None

    def _lookup(self, name: Name) -> Fraction:
        word = name.ident.name
        info = fields_of(ModelSettings).get(word)
        numeric = [n for n in ("vocab", "d_model", "context") if n in self.statements]
        if info is None or word not in ("vocab", "d_model", "context"):
            near = nearest(word, numeric)
            hint = f"did you mean `{near}`?" if near else f"numbers come from {', '.join(numeric) or 'settings'}"
            raise DiagnosticError(error("unknown-name", f"`{word}` is not a number here", name.span, help=hint))
        if word in self._running:
            message = f"`{word}` is defined by itself"
            raise DiagnosticError(error("circular-setting", message, name.span, help="give it a number"))
        bound = self._bind(word)
        if bound is None:
            message = f"`{word}` is used here, but it has no value"
            raise DiagnosticError(error("unset-name", message, name.span, help=f"add a line: {word} 4096"))
        return Fraction(bound.value)


def _missing(name: str, end: Span) -> Any:
    examples = {"vocab": "vocab 32000", "d_model": "d_model 4096", "mlp": "mlp swiglu(14336)` or `mlp none"}
    doc = fields_of(ModelSettings)[name].doc
    return error("missing-setting", f"a spec needs `{name}`: {doc}", end, help=f"add a line `{examples[name]}`")
