"""State: what one sequence keeps between tokens, by budget: keys and values, recurrences, convolutions.

The layout is that of the generated cache. Keys and values lead with the tokens that they hold, at most a window of
them; a convolution leads with the `d_conv - 1` columns that it still needs. mamba_ssm and transformers keep `d_conv`
columns, so that is counted beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

from archc.ir.graph import Graph
from archc.ir.values import State, numel
from archc.passes.grouping import Group, groups
from archc.passes.workload import Workload


@dataclass(frozen=True, slots=True)
class Amount:
    """Elements, and their bytes in the dtype of their budget, for one sequence."""

    elements: int = 0
    n_bytes: int = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.elements + other.elements, self.n_bytes + other.n_bytes)


@dataclass(frozen=True, slots=True)
class GroupState:
    """The state of all layers of a group, for one sequence.

    `kv_per_token` is what one more token adds while no window is full; `kv` what a whole context leaves, windows
    respected; `kv_unwindowed` the same if there were no windows. `conv_wide` is `conv` with `d_conv` columns.
    """

    name: str
    times: int
    kv_per_token: Amount = Amount()
    kv: Amount = Amount()
    kv_unwindowed: Amount = Amount()
    ssm: Amount = Amount()
    conv: Amount = Amount()
    conv_wide: Amount = Amount()

    @property
    def recurrent(self) -> Amount:
        """What does not grow with the context."""
        return self.ssm + self.conv

    def __add__(self, other: GroupState) -> GroupState:
        return GroupState(
            self.name,
            self.times,
            self.kv_per_token + other.kv_per_token,
            self.kv + other.kv,
            self.kv_unwindowed + other.kv_unwindowed,
            self.ssm + other.ssm,
            self.conv + other.conv,
            self.conv_wide + other.conv_wide,
        )


@dataclass(frozen=True, slots=True)
class SequenceState:
    """What one sequence keeps, by group."""

    groups: tuple[GroupState, ...]

    @property
    def total(self) -> GroupState:
        return sum(self.groups, GroupState("total", 1))


def state(graph: Graph, workload: Workload) -> SequenceState:
    """What one sequence of `workload.context` tokens keeps."""
    return SequenceState(tuple(_group(group, workload) for group in groups(graph)))


def _group(group: Group, workload: Workload) -> GroupState:
    start = GroupState(group.name, group.times)
    states = (kept for node in group.nodes for kept in node.op.state())
    return sum((_kept(kept, group, workload) for kept in states), start)


def _kept(kept: State, group: Group, workload: Workload) -> GroupState:
    size = workload.bytes_of(kept.dtype)

    def amount(elements: int) -> Amount:
        return Amount(group.times * elements, group.times * elements * size)

    held = kept.numel.at(workload.sequences)
    column = numel(kept.axes[1:]).at(workload.sequences)
    if kept.kind == "kv":
        unwindowed = amount(workload.context * column)
        return GroupState("", 1, kv_per_token=amount(column), kv=amount(held), kv_unwindowed=unwindowed)
    if kept.kind == "conv":
        return GroupState("", 1, conv=amount(held), conv_wide=amount(held + column))
    return GroupState("", 1, ssm=amount(held))
