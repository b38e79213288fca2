"""Adaptive embedding and softmax: rare words have narrower vectors, and share a cluster of the softmax.

Sources: softmax, Grave et al. 2017, arXiv:1609.04309; input and tying, Baevski & Auli 2019, arXiv:1809.10853.
"""

from __future__ import annotations

from dataclasses import dataclass

from archc.ir.op import Flops, Module, Op, Printer, Result
from archc.ir.size import Size, add, minimum, mul
from archc.ir.tape import INDEX_BYTES, Tape
from archc.ir.values import BATCH, TIME, Axis, Init, Value, Weight, constant_axis, numel
from archc.ops.ends import TABLE

HEAD = "lm_head"


@dataclass(frozen=True, kw_only=True)
class Adaptive(Op):
    """The vocabulary cut at `cutoffs` into clusters, each `div` times narrower than the one before."""

    vocab: Axis
    d_model: Axis
    cutoffs: tuple[int, ...]
    div: int

    @property
    def words(self) -> tuple[Axis, ...]:
        """How many words each cluster has."""
        ends = (*self.cutoffs, self.vocab.size.value)
        return tuple(constant_axis("vocab", end - start) for start, end in zip((0, *self.cutoffs), ends, strict=True))

    @property
    def widths(self) -> tuple[Axis, ...]:
        """And how wide its vectors are."""
        tails = (Axis(f"d_model/{self.div**i}", self.d_model.symbol // self.div**i) for i in range(1, len(self.words)))
        return (self.d_model, *tails) if self.div > 1 else (self.d_model,) * len(self.words)

    @property
    def all_widths(self) -> Size:
        return add(*(width.symbol for width in self.widths))

    def tables(self) -> tuple[Weight, ...]:
        """The words' vectors, by standard deviations of width^-1/2."""
        names = ("weight", *(f"tail_{i}" for i in range(1, len(self.words))))
        return tuple(
            Weight(f"{TABLE}.{name}", (words, width), _normal(width))
            for name, words, width in zip(names, self.words, self.widths, strict=True)
        )

    def projections(self) -> tuple[Weight, ...]:
        """From the vectors of each cluster to the model."""
        return tuple(
            Weight(f"{TABLE}.proj_{i}", (self.d_model, width), _normal(self.d_model))
            for i, width in enumerate(self.widths)
        )

    @property
    def matmul(self) -> bool:
        return True


@dataclass(frozen=True, kw_only=True)
class AdaptiveEmbedding(Adaptive):
    """Token ids `[B, T]` to vectors; every token runs through the projection of every cluster, all but one as zeros."""

    def results(self, *inputs: Value) -> tuple[Result, ...]:
        return (Result((*inputs[0].axes, self.d_model)),)

    def weights(self) -> tuple[Weight, ...]:
        return (*self.tables(), *self.projections())

    def modules(self) -> tuple[Module, ...]:
        sizes = f"{self.vocab.size.value}, {self.d_model.size.value}, cutoffs={self.cutoffs!r}, div={self.div}"
        return (Module(TABLE, f"AdaptiveEmbedding({sizes})"),)

    def flops(self, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> Flops:
        forward = mul(2, numel(outputs[0].axes), self.all_widths)
        return Flops(forward, forward, 2 * forward)

    def touched(self, weight: Weight) -> Size:
        rows, width = weight.axes
        tokens = mul(BATCH.symbol, TIME.symbol)
        return mul(minimum(rows.symbol, tokens), width.symbol) if weight in self.tables() else numel(weight.axes)

    def retain(self, tape: Tape, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> None:
        """Of each cluster the indices and which are its own; all rows and all projections side by side."""
        tokens, clusters = mul(BATCH.symbol, TIME.symbol), len(self.words)
        tape.extra("indices", mul(clusters * INDEX_BYTES, tokens))
        tape.extra("masks", mul(clusters, tokens))
        tape.extra("rows", mul(tokens, self.all_widths, tape.element))
        tape.extra("projections", mul(self.d_model.symbol, self.all_widths, tape.element))
        tape.new(*outputs, product=True)

    def imports(self) -> tuple[tuple[str, str], ...]:
        return ((".adaptive", "AdaptiveEmbedding"),)

    def code(self, p: Printer) -> str:
        return f"{p.weight(TABLE)}({p.inputs[0]})"

    @property
    def label(self) -> str:
        return f"adaptive_embedding {self.cutoffs} / {self.div}"


@dataclass(frozen=True, kw_only=True)
class AdaptiveHead(Adaptive):
    """Log-probabilities through the embedding's own tables, and through its projections but the first."""

    def results(self, *inputs: Value) -> tuple[Result, ...]:
        return (Result((*inputs[0].axes[:-1], self.vocab)),)

    def weights(self) -> tuple[Weight, ...]:
        zeros, clusters = Init("zeros_"), constant_axis("vocab clusters", len(self.cutoffs))
        own = (
            Weight(f"{HEAD}.clusters", (clusters, self.d_model), _normal(self.d_model)),
            Weight(f"{HEAD}.cluster_bias", (clusters,), zeros, decay=False),
            Weight(f"{HEAD}.bias", (self.vocab,), zeros, decay=False),
        )
        return (*own, Weight(f"{HEAD}.proj", (self.d_model,) * 2, _normal(self.d_model))) if self.div > 1 else own

    def borrowed(self, inputs: tuple[Value, ...]) -> tuple[Weight, ...]:
        if self.div > 1:
            return (*self.tables(), *self.projections()[1:])
        return (Weight(f"{TABLE}.weight", (self.vocab, self.d_model), _normal(self.d_model)),)

    def modules(self) -> tuple[Module, ...]:
        sizes = f"{self.vocab.size.value}, {self.d_model.size.value}, cutoffs={self.cutoffs!r}, project={self.div > 1}"
        return (Module(HEAD, f"AdaptiveHead({sizes})"),)

    def flops(self, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> Flops:
        """The projections, the frequent words with the clusters, and the words of each cluster."""
        pairs = zip(self.words, self.widths, strict=True)
        words = [*(mul(n.symbol, width.symbol) for n, width in pairs), mul(len(self.cutoffs), self.d_model.symbol)]
        projected = [mul(self.d_model.symbol, self.all_widths)] if self.div > 1 else []
        forward = mul(2, numel(inputs[0].axes[:-1]), add(*words, *projected))
        return Flops(forward, forward, 2 * forward)

    def retain(self, tape: Tape, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> None:
        """What is projected, the words that clusters stand beside, and the log-probabilities of every softmax."""
        rows, first = numel(inputs[0].axes[:-1]), add(self.words[0].symbol, len(self.cutoffs))
        tape.keep(*inputs)
        if self.div > 1:
            tape.extra("projected", mul(rows, self.all_widths, tape.element))
        tape.extra("words and clusters", mul(first, self.d_model.symbol, tape.element))
        softmaxes = add(self.vocab.symbol, len(self.cutoffs))
        tape.extra("log-probabilities", mul(rows, softmaxes, tape.width()), product=True)
        tape.new(*outputs, wide=True, product=True)

    def imports(self) -> tuple[tuple[str, str], ...]:
        return ((".adaptive", "AdaptiveHead"),)

    def code(self, p: Printer) -> str:
        return f"{p.weight(HEAD)}({p.inputs[0]}, {p.weight(TABLE)})"

    @property
    def label(self) -> str:
        return f"adaptive_head {self.cutoffs} / {self.div}"


def _normal(width: Axis) -> Init:
    return Init("normal_", (width.size.value**-0.5,))
