"""Memory of one device in a training step, followed as the emitted `train.py` runs it.

Forward keeps what backward reads. The loss makes the logits wide. Backward goes through the layers from the last to the
first: what they saved goes, gradients of their weights come. Then gradients are added up in `grad_dtype`, tensor by
tensor, and the optimizer moves the masters. Layers that are computed again have their forward's storages back for the
time of their own backward.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from archc.ir.graph import Graph, Layer
from archc.ir.values import numel
from archc.passes.grouping import EMBEDDING, HEAD, groups
from archc.passes.holdings import Holdings, held_groups, share, total, units
from archc.passes.memory import Amount, Memory, nonzero
from archc.passes.params import Params
from archc.passes.plan import Plan, Training
from archc.passes.stages import cut_evenly, first, layer_at, length, turning_points
from archc.passes.working_set import of_group
from archc.passes.workload import DTYPE_BYTES, Workload, stored_width

LOSS = "loss"  # the group of what the loss saves
FP32 = DTYPE_BYTES["fp32"]


class Saving(Protocol):
    """Saved bytes of all layers of one group."""

    @property
    def name(self) -> str: ...

    @property
    def n_bytes(self) -> int: ...


class SavedActivations(Protocol):
    """What one pass of a training step keeps, by group and in the recompute mode in question; the loss is a group."""

    @property
    def groups(self) -> tuple[Saving, ...]: ...


def training_memory(
    graph: Graph, workload: Workload, plan: Plan, training: Training, params: Params, saved: SavedActivations
) -> Memory:
    """A step of `training.accumulation` passes of `workload.batch` sequences, by the model as it is built."""
    step = _Step(graph, workload, plan, training, params, saved)
    return max((step.memory(i) for i in range(plan.pp)), key=lambda memory: memory.peak.n_bytes)


class _Step:
    """What is the same for all stages: bytes of one layer of each group."""

    def __init__(
        self,
        graph: Graph,
        workload: Workload,
        plan: Plan,
        training: Training,
        params: Params,
        saved: SavedActivations,
    ) -> None:
        self.graph, self.workload, self.plan, self.training, self.params = graph, workload, plan, training, params
        self.n_layers = length(graph.stack)
        self.cut = cut_evenly(graph.stack, plan.pp)
        self.units = units(params, workload, plan, training)
        found = groups(graph)
        self.name = {layer: group.name for group in found if group.is_layer for layer in group.layers}
        self.times = {group.name: group.times for group in found}
        self.saved = {group.name: group.n_bytes for group in saved.groups}
        sets = {g.name: of_group(graph, g, workload) for g in found if g.is_layer}
        self.working = {
            name: -(-(a.backward(workload.sequences) - a.weight_gradients) // plan.sequence_divisor)
            for name, a in sets.items()
        }

    def split(self, n_bytes: int) -> int:
        """Of one sequence's activations on a device."""
        return -(-n_bytes // self.plan.sequence_divisor)

    def saved_by(self, layers: Mapping[Layer, int]) -> int:
        return self.split(sum(n * self.saved[self.name[x]] // self.times[self.name[x]] for x, n in layers.items()))

    def gradients(self, layers: Mapping[Layer, int]) -> int:
        return sum(n * self.units[self.name[layer]].gradients for layer, n in layers.items())

    def memory(self, number: int) -> Memory:
        stage, last = self.cut[number], number == self.plan.pp - 1
        held = held_groups(self.graph, stage, first=number == 0, last=last)
        kept = total(self.units, held)
        again = self.training.accumulation > 1
        base = kept.persistent + kept.gathered + (kept.added_up if again else 0)
        ends = self.split(self.saved[HEAD] + self.saved[LOSS]) if last else 0
        start = self.split(self.saved[EMBEDDING]) if number == 0 else 0
        stack = start + self.saved_by(stage)
        # One forward, one backward: a stage has begun as many passes as there are stages from it on.
        in_flight = min(self.plan.pp - number, self.training.accumulation)
        waiting = (in_flight - 1) * (stack + ends)
        moments = [Amount("end of forward", base + waiting + stack + ends)]
        if last:
            moments += [Amount(name, base + waiting + stack + n) for name, n in self.loss().items()]
        moments += self.backward(number, base + waiting + start, kept, held)
        moments.append(Amount("adding gradients up", kept.persistent + self.converting(kept, held)))
        moments.append(Amount("update", kept.persistent + kept.added_up))
        parts = nonzero(
            Amount("weights", kept.weights),
            Amount("masters", kept.masters),
            Amount("optimizer state", kept.optimizer),
            Amount("gradients", kept.added_up),
            Amount("saved activations", in_flight * (stack + ends)),
            Amount("gathered weights", kept.gathered),
        )
        return Memory("train", number, parts, tuple(moments))

    def loss(self) -> dict[str, int]:
        """The last stage's own moments: logits, the wide copy of them, log-probabilities, and two gradients."""
        logits = numel(self.graph.epilogue.outputs[0].axes).at(self.workload.sequences)
        size = DTYPE_BYTES[self.workload.dtype]
        wide = logits * max(size, FP32)
        copy = wide if size < FP32 else 0
        head = self.saved[HEAD]
        return {
            "loss, forward": self.split(head + logits * size + copy + wide),
            "loss, backward": self.split(head + 3 * wide),
        }

    def backward(self, number: int, base: int, kept: Holdings, held: Mapping[str, int]) -> list[Amount]:
        """The worst moment of each group of layers."""
        stack, pp = self.graph.stack, self.plan.pp
        begin, end = number * self.n_layers // pp, (number + 1) * self.n_layers // pp
        until = first(stack, begin)
        behind_all = held[HEAD] * self.units[HEAD].gradients
        behind_all += sum(n * self.units[name].gradients for name, n in held.items() if name not in self._owned)
        worst: dict[str, int] = {}
        for place in turning_points(stack, begin, end):
            layer = layer_at(stack, place)
            before = {x: n - until.get(x, 0) for x, n in first(stack, place).items()}
            behind = {x: n - before.get(x, 0) - (x is layer) for x, n in self.cut[number].items()}
            working = self.working[self.name[layer]] + self.units[self.name[layer]].gradients
            handed = self.saved_by({layer: 1}) if self.training.recompute != "none" else 0
            now = base + self.saved_by(before) + handed + working + self.gradients(behind) + behind_all
            worst[self.name[layer]] = max(worst.get(self.name[layer], 0), now)
        return [Amount(f"backward of {name}", n) for name, n in worst.items()]

    @property
    def _owned(self) -> set[str]:
        """Groups whose gradients are counted with their layers, or come at one end."""
        return {*self.name.values(), EMBEDDING, HEAD}

    def converting(self, kept: Holdings, held: Mapping[str, int]) -> int:
        """Gradients while they are added up: those of narrow weights go one by one into what there is of them."""
        if self.training.accumulation > 1:
            return kept.gradients + kept.added_up
        if kept.added_up == kept.gradients:
            return kept.gradients
        last = next(g for g in reversed(self.params.groups) if held[g.name] and g.tensors).tensors[-1]
        return kept.added_up + share(last, self.plan) * stored_width(last, self.workload.weights)
