"""Memory of one device in a prefill or a decode step, and the table that training's memory has too.

The peak is that of the worst moment of the worst pipeline stage. A prefill runs chunk by chunk, as the emitted
`generate.py` does. What is in no peak: the device's context, the allocator's rounding and fragments, the workspaces of
libraries, and buffers of communication.
"""

from __future__ import annotations

from dataclasses import dataclass

from archc.ir.graph import Graph
from archc.passes.grouping import groups
from archc.passes.holdings import cache_bytes, held_groups, total, units
from archc.passes.params import Params
from archc.passes.plan import Plan
from archc.passes.stages import cut_evenly
from archc.passes.working_set import of_group
from archc.passes.workload import Workload

PREFILL_CHUNK = 2048  # tokens of a prompt that the emitted generate.py runs at once
CACHES = {"kv": "KV cache", "ssm": "SSM state", "conv": "conv state"}


@dataclass(frozen=True, slots=True)
class Amount:
    """So many bytes of one device: of something, or at a moment."""

    name: str
    n_bytes: int


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of each device of the worst pipeline stage. `parts` say what is held, `moments` when; the largest counts.

    Parts need not be there at one moment, and so do not add up to the peak of a training step.
    """

    phase: str
    stage: int
    parts: tuple[Amount, ...]
    moments: tuple[Amount, ...]

    @property
    def peak(self) -> Amount:
        return max(self.moments, key=lambda moment: moment.n_bytes)


def inference_memory(
    graph: Graph, workload: Workload, plan: Plan, params: Params, *, decode: bool, chunk: int = PREFILL_CHUNK
) -> Memory:
    """A decode step, or the last chunk of a prefill, at the end of the context, of the model as it is built."""
    cut, unit = cut_evenly(graph.stack, plan.pp), units(params, workload, plan, None)
    tokens = 1 if decode else min(chunk, workload.context)
    bound = {**workload.sequences, "T": -(-tokens // plan.cp), "P": workload.context - tokens}
    running = {g.name: of_group(graph, g, workload).forward(bound) for g in groups(graph) if g.nodes}
    found = []
    for i, stage in enumerate(cut):
        held = held_groups(graph, stage, first=i == 0, last=i == len(cut) - 1)
        kept, caches = total(unit, held), cache_bytes(graph, held, workload, plan)
        most = max(n_bytes for name, n_bytes in running.items() if held[name])
        parts = nonzero(
            Amount("weights", kept.weights),
            *(Amount(name, caches[kind]) for kind, name in CACHES.items()),
            Amount("activations", -(-most // plan.tp)),
            Amount("gathered weights", kept.gathered),
        )
        phase = "decode" if decode else "prefill"
        moment = Amount(phase, sum(part.n_bytes for part in parts))
        found.append(Memory(phase, i, parts, (moment,)))
    return max(found, key=lambda memory: memory.peak.n_bytes)


def nonzero(*amounts: Amount) -> tuple[Amount, ...]:
    return tuple(amount for amount in amounts if amount.n_bytes)
