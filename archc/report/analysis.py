"""Everything that is known about one model under one workload: the results of the passes, side by side."""

from __future__ import annotations

from dataclasses import dataclass

from archc.passes.convention import Convention
from archc.passes.flops import ModelFlops
from archc.passes.outline import Outline
from archc.passes.params import Params
from archc.passes.state import SequenceState
from archc.passes.workload import Workload


@dataclass(frozen=True, slots=True)
class Analysis:
    """`flops` are read from the graph as the spec says it, `kernel_flops` from the graph as it is built.

    `training_flops` of one sequence are counted by `convention`.
    """

    outline: Outline
    workload: Workload
    params: Params
    state: SequenceState
    flops: ModelFlops
    kernel_flops: ModelFlops
    convention: Convention
    training_flops: int

    @property
    def model_flops(self) -> int:
        """Forward, of one sequence."""
        return self.flops.total.model // self.workload.batch

    @property
    def model_flops_per_token(self) -> int:
        """Forward, the mean over the tokens of a sequence, rounded."""
        return per_token(self.flops.total.model, self.workload)

    @property
    def training_flops_per_token(self) -> int:
        """Forward and backward as `convention` counts, the mean over the tokens of a sequence, rounded."""
        return per_token(self.training_flops * self.workload.batch, self.workload)

    @property
    def defaults(self) -> tuple[str, ...]:
        """What neither the spec nor the user said."""
        context = (f"context {self.workload.context:,} tokens",) if self.workload.assumed else ()
        return (*self.outline.defaults, *context)

    @property
    def state_bytes(self) -> int:
        """What one sequence keeps at the end of the context."""
        total = self.state.total
        return total.kv.n_bytes + total.recurrent.n_bytes


def per_token(flops: int, workload: Workload) -> int:
    """The mean over all tokens of a workload, rounded to the nearest integer."""
    return (2 * flops + workload.n_tokens) // (2 * workload.n_tokens)
