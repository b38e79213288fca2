"""Parameters: every stored tensor by its canonical name, and the sums of them that people quote.

A tensor that is stored once counts once, however often it is used: a tied head owns nothing, and a shared module is
counted for each of its copies. "Active" is the share that one token uses, `top_k / n_experts` of a routed expert's
weights and all of everything else, embedding and head included. "Unrolled" counts a shared module for each of its uses.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from math import prod

from archc.ir.graph import Graph
from archc.ir.values import Axis, Weight
from archc.passes.grouping import EMBEDDING, Group, chooses, groups
from archc.passes.workload import DTYPE_BYTES, Dtype, Workload, stored_width

FP32 = DTYPE_BYTES["fp32"]


@dataclass(frozen=True, slots=True)
class Tensor:
    """A stored tensor of each layer or copy in a group; `*` in its name is their index, and `times` counts them."""

    name: str
    axes: tuple[str, ...]
    shape: tuple[int, ...]
    times: int
    active_share: Fraction
    decay: bool
    keep_fp32: bool
    int8: bool
    of_vocab: bool  # one row for each entry of the vocabulary, or of a cluster of it
    cut: bool = True  # by tensor parallelism; not norms of the stream, nor what chooses experts

    @property
    def total(self) -> int:
        """Elements of all `times` tensors."""
        return self.times * prod(self.shape)

    @property
    def active(self) -> int:
        share = self.total * self.active_share
        assert share.denominator == 1, f"{self.name}: a fraction of a parameter cannot be active"
        return int(share)

    @property
    def routed(self) -> bool:
        """Whether tokens go through a part of it only."""
        return self.active_share != 1

    def n_bytes(self, dtype: Dtype) -> int:
        """Bytes of all `times` tensors where weights are stored as `dtype`; some never go below fp32."""
        return self.total * stored_width(self, dtype)


@dataclass(frozen=True, slots=True)
class GroupParams:
    """The tensors of one group. All sums run over all its layers, or over the copies of a shared module."""

    name: str
    times: int
    uses: int  # more than `times` for a shared module
    is_layer: bool
    tensors: tuple[Tensor, ...]

    @property
    def total(self) -> int:
        return sum(tensor.total for tensor in self.tensors)

    @property
    def active(self) -> int:
        return sum(tensor.active for tensor in self.tensors)

    @property
    def routed(self) -> int:
        return sum(tensor.total for tensor in self.tensors if tensor.routed)

    @property
    def unrolled(self) -> int:
        return self.total * self.uses // self.times


@dataclass(frozen=True, slots=True)
class Params:
    """The parameters of a model."""

    groups: tuple[GroupParams, ...]
    weight_bytes: int

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return tuple(tensor for group in self.groups for tensor in group.tensors)

    @property
    def total(self) -> int:
        """Stored parameters: what memory holds."""
        return sum(group.total for group in self.groups)

    @property
    def active(self) -> int:
        """Parameters that one token uses: what compute follows."""
        return sum(group.active for group in self.groups)

    @property
    def unrolled(self) -> int:
        """Parameters of the model if every layer had its own: a shared module once for each use."""
        return sum(group.unrolled for group in self.groups)

    @property
    def routed(self) -> int:
        """Parameters of routed experts, all of them."""
        return sum(group.routed for group in self.groups)

    @property
    def embedding(self) -> int:
        """The table of the vocabulary at the input."""
        return sum(t.total for group in self.groups if group.name == EMBEDDING for t in group.tensors if t.of_vocab)

    @property
    def head(self) -> int:
        """The matrix to the logits; 0 if it is the embedding's."""
        return sum(tensor.total for tensor in self.tensors if tensor.of_vocab) - self.embedding


def params(graph: Graph, workload: Workload) -> Params:
    """The parameters of `graph`; only the dtype of `workload` matters, for bytes."""
    vocab, d_model = graph.settings.vocab, graph.settings.d_model
    tables = tuple(
        GroupParams(group.name, group.times, group.uses, group.is_layer, tuple(_tensors(group, vocab, d_model)))
        for group in groups(graph)
    )
    stored = sum(tensor.n_bytes(workload.weights) for table in tables for tensor in table.tensors)
    return Params(tables, stored)


def _tensors(group: Group, vocab: Axis, d_model: Axis) -> Iterator[Tensor]:
    nodes = [node for _, node in group.stored]
    for module, node in group.stored:
        for weight in node.op.weights():
            cut = weight.axes != (d_model,) and weight.axes[0].size.value > 1 and not chooses(node, nodes)
            yield _tensor(weight, f"{module}." if module else "", group.times, vocab, cut)


def _tensor(weight: Weight, prefix: str, times: int, vocab: Axis, cut: bool) -> Tensor:
    return Tensor(
        name=prefix + weight.path,
        axes=tuple(axis.name for axis in weight.axes),
        shape=tuple(axis.size.value for axis in weight.axes),
        times=times,
        active_share=weight.active,
        decay=weight.decay,
        keep_fp32=weight.keep_fp32,
        int8=weight.int8,
        of_vocab=any(axis.name == vocab.name for axis in weight.axes),
        cut=cut,
    )
