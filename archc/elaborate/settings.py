"""The settings of a model: what belongs to the whole and not to a layer. They are free of order."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from typing import Literal

from archc.elaborate.accepts import accepts
from archc.layers.kind import ChannelMixer, Norm, Part, Placement, Problem, fields_of
from archc.layers.parts import RMS

MAX_CUTOFFS = 32  # each makes tables and a softmax of its own


@dataclass(frozen=True, kw_only=True)
class Adaptive(Part, keyword="adaptive"):
    """Rare words with narrower vectors, in clusters of the softmax (arXiv:1809.10853): `adaptive([2000, 8000])`."""

    cutoffs: tuple[int, ...] = field(
        metadata={"doc": "where the sorted vocabulary is cut", "example": "[20000, 40000]"}
    )
    div: int = field(default=4, metadata={"doc": "each cluster's vectors are so many times narrower"})

    def problems(self, vocab: int, d_model: int) -> list[Problem]:
        """What is wrong with the cuts in a model of these sizes, as paths into the settings."""
        ends, fields = (0, *self.cutoffs, vocab), ("embed.adaptive.cutoffs", "vocab")
        if len(self.cutoffs) > MAX_CUTOFFS:
            message = f"a vocabulary is cut {MAX_CUTOFFS} times at most, and not {len(self.cutoffs)} times"
            return [Problem("bad-cutoffs", message, fields[:1], "", "published models have 3 cutoffs")]
        if any(end <= start for start, end in pairwise(ends)):
            message = f"the cutoffs of a vocabulary of {vocab} increase and stay below it"
            return [Problem("bad-cutoffs", message, fields, "", "write for example adaptive([20000, 60000])")]
        if d_model % self.div ** len(self.cutoffs):
            message = f"a d_model of {d_model} cannot be divided by {self.div} {len(self.cutoffs)} times"
            return [Problem("bad-cutoffs", message, ("embed.adaptive.div", "d_model"), "", "div=1 keeps the width")]
        return []


@dataclass(frozen=True, kw_only=True)
class Embed(Part, keyword="embed"):
    """The embedding."""

    scale: Fraction | None = field(default=None, metadata={"doc": "factor on the embedded tokens"})
    tied: bool = field(default=False, metadata={"doc": "the head uses the embedding's weight"})
    adaptive: Adaptive | None = field(default=None, metadata={"doc": "clusters of rare words; the head is tied then"})


@dataclass(frozen=True, kw_only=True)
class Logits(Part, keyword="logits"):
    """The logits."""

    scale: Fraction | None = field(default=None, metadata={"doc": "factor on the logits"})
    cap: Fraction | None = field(default=None, metadata={"doc": "soft cap: cap * tanh(logits / cap)", "above": 0})


@dataclass(frozen=True, kw_only=True)
class Residual(Part, keyword="residual"):
    """The residual stream."""

    dtype: Literal["fp32"] | None = field(default=None, metadata={"doc": "fp32 keeps the stream in fp32"})
    branch: Fraction | None = field(default=None, metadata={"doc": "factor on what each sublayer adds"})
    stream: Fraction | None = field(default=None, metadata={"doc": "factor on the stream that it is added to"})
    norm: Placement = field(
        default="pre",
        metadata={
            "doc": "where each sublayer f is normed: pre h + f(norm(h)); post norm(h + f(h)), and none at the end; "
            "out h + norm(f(h)); sandwich h + norm(f(norm(h)))"
        },
    )
    of: Literal["stream", "normed"] = field(
        default="stream", metadata={"doc": "normed adds to what the sublayer read, norm(h) + f(norm(h))"}
    )

    def problems(self) -> list[Problem]:
        """Fields that contradict one another, as paths into the settings."""
        if self.of == "normed" and self.norm in ("post", "out"):
            message = f"with norm={self.norm} a sublayer reads the stream itself, so there is nothing normed to add to"
            return [Problem("residual-conflict", message, ("residual.of", "residual.norm"), "", "leave out `of`")]
        if self.dtype == "fp32" and self.of == "normed":
            message = "a stream of norms has the dtype of their weights, so it cannot be fp32"
            return [Problem("residual-conflict", message, ("residual.dtype", "residual.of"), "", "leave out `dtype`")]
        if self.dtype == "fp32" and self.norm in ("post", "out"):
            message = f"with norm={self.norm} a sublayer reads the stream itself, so it cannot be fp32"
            return [Problem("residual-conflict", message, ("residual.dtype", "residual.norm"), "", "leave out `dtype`")]
        return []


@dataclass(frozen=True, kw_only=True)
class ModelSettings(Part):
    """What the statements of a spec set."""

    vocab: int = field(metadata={"doc": "size of the vocabulary, padding included", "example": "vocab 32000"})
    d_model: int = field(metadata={"doc": "width of the residual stream", "example": "d_model 4096"})
    context: int | None = field(default=None, metadata={"doc": "longest context, in tokens", "tokens": True})
    prefix: int | None = field(
        default=None, metadata={"doc": "learned tokens in front of every document", "tokens": True}
    )
    norm: Norm = field(default=RMS(), metadata={"doc": "norm of every sublayer and at the end"})
    mlp: ChannelMixer | None = field(
        metadata={"doc": "channel mixer of every layer that holds none", "example": "mlp swiglu(14336)"}
    )
    tied: bool = field(default=False, metadata={"doc": "the head uses the embedding's weight"})
    embed: Embed = field(default=Embed(), metadata={"doc": "fields of the embedding"})
    logits: Logits = field(default=Logits(), metadata={"doc": "fields of the logits"})
    residual: Residual = field(default=Residual(), metadata={"doc": "fields of the residual stream"})

    @property
    def is_tied(self) -> bool:
        return self.tied or self.embed.tied or self.embed.adaptive is not None

    def problems(self) -> list[Problem]:
        """Settings that contradict one another."""
        adaptive = self.embed.adaptive
        return [*self.residual.problems(), *(adaptive.problems(self.vocab, self.d_model) if adaptive else ())]


def numeric_settings() -> tuple[str, ...]:
    """The settings that are numbers, and so may stand in constant expressions."""
    return tuple(name for name, info in fields_of(ModelSettings).items() if int in accepts(info))
