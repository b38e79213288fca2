"""FLOPs: a multiply-add counts 2. What the mathematics needs, and what the generated kernels execute.

Causal attention counts the pairs that are visible, `T (T + 1) / 2` of a whole sequence, windows likewise. The backward
of kernels contains what they compute a second time. Look-ups, norms and pointwise operations count nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from archc.ir.graph import Graph
from archc.passes.grouping import Group, groups
from archc.passes.workload import Workload

TRAINING_FACTOR = 3  # forward, and backward at twice its cost: the convention behind model FLOPs utilisation


@dataclass(frozen=True, slots=True)
class GroupFlops:
    """FLOPs of all layers of a group for the whole workload: all sequences, all tokens.

    `model` is forward, without recomputation; `forward` and `backward` are what kernels execute; `decode` is one step
    of the model at the end of the context, a single token for each sequence.
    """

    name: str
    times: int
    model: int = 0
    forward: int = 0
    backward: int = 0
    decode: int = 0

    def __add__(self, other: GroupFlops) -> GroupFlops:
        return replace(
            self,
            model=self.model + other.model,
            forward=self.forward + other.forward,
            backward=self.backward + other.backward,
            decode=self.decode + other.decode,
        )


@dataclass(frozen=True, slots=True)
class ModelFlops:
    """FLOPs of a model under a workload."""

    groups: tuple[GroupFlops, ...]

    @property
    def total(self) -> GroupFlops:
        return sum(self.groups, GroupFlops("total", 1))


def flops(graph: Graph, workload: Workload) -> ModelFlops:
    """FLOPs of `workload.batch` sequences of `workload.context` tokens, and of a decode step at their end."""
    return ModelFlops(tuple(_group(group, workload) for group in groups(graph)))


def _group(group: Group, workload: Workload) -> GroupFlops:
    each = [node.op.flops(node.inputs, node.outputs) for node in group.nodes]
    sequences, last = workload.sequences, workload.last_token
    return GroupFlops(
        group.name,
        group.times,
        model=group.times * sum(flops.model.at(sequences) for flops in each),
        forward=group.times * sum(flops.forward.at(sequences) for flops in each),
        backward=group.times * sum(flops.backward.at(sequences) for flops in each),
        decode=group.times * sum(flops.model.at(last) for flops in each),
    )
