"""Saved activations: the storages that a training forward creates and its backward needs.

Every op says what its backward reads and where its results lie (`Op.retain`); here that is followed through the model,
so that a storage counts once, whoever reads it: the views of a fused projection, and what one layer hands to the next.
It belongs to the group that creates it. Parameters, tokens and the loss are not counted.

Recomputation works layer by layer. `full` keeps what a layer reads, which is the stream alone: the pending sum is
taken first. `selective` keeps what is handed on and the results of matrix products, attention and scans, but for
products that are cheap for their size.

Nothing is unrolled. How a layer behaves depends on itself and on what it is handed (`Slot`), of which there are few
kinds, so the states between the layers of a repeat soon come round again, and then whole rounds are counted at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import chain

from archc.ir.graph import Graph, Node, OpGraph, Repeat, Stack, Use, counts
from archc.ir.size import Const, mul
from archc.ir.tape import Buffer, Tape
from archc.ir.values import Value, numel
from archc.ops.loss import CrossEntropy
from archc.passes.grouping import EMBEDDING, HEAD, layer_label, sublayer_labels
from archc.passes.plan import Recompute
from archc.passes.workload import DTYPE_BYTES, Workload

LOSS = "loss"


@dataclass(frozen=True, slots=True)
class SavedTensor:
    """A kept storage of one op, `times` of them: `n_bytes` each, `formula` in bytes over the symbols of sizes."""

    op: str
    name: str
    formula: str
    n_bytes: int
    times: int

    @property
    def total(self) -> int:
        return self.n_bytes * self.times


@dataclass(frozen=True, slots=True)
class GroupSaved:
    """What all layers of a group create and keep."""

    name: str
    tensors: tuple[SavedTensor, ...]

    @property
    def n_bytes(self) -> int:
        return sum(tensor.total for tensor in self.tensors)


@dataclass(frozen=True, slots=True)
class Saved:
    """The saved activations of a training step, by group."""

    recompute: Recompute
    groups: tuple[GroupSaved, ...]

    @property
    def n_bytes(self) -> int:
        return sum(group.n_bytes for group in self.groups)


@dataclass(frozen=True, slots=True)
class Slot:
    """A storage that crosses the border between layers: what it is, who created it, whether it is kept already.

    `number` tells the storages of one border apart.
    """

    group: str
    tensor: SavedTensor
    wide: bool
    kept: bool = False
    number: int = 0


Border = tuple[tuple[Slot, ...], ...]  # the storages of each value that is handed on; none if it is not there yet
Entry = tuple[str, SavedTensor]  # a group, and one storage of it that turned out to be kept


@dataclass(frozen=True, slots=True)
class Step:
    """A program of a group, run behind a border; a layer's may be run again in backward."""

    program: OpGraph
    group: str
    border: Border
    recompute: Recompute = "none"


def saved(graph: Graph, workload: Workload, recompute: Recompute = "none") -> Saved:
    """What a training step of `workload` keeps in the model that is built from the lowered `graph`."""
    run = _Run(graph, workload, recompute)
    found = run.whole()
    names = dict.fromkeys([EMBEDDING, *run.labels.values(), HEAD, LOSS])
    by_group = {
        name: tuple(replace(tensor, times=times) for (group, tensor), times in found.items() if group == name)
        for name in names
    }
    return Saved(recompute, tuple(GroupSaved(name, tensors) for name, tensors in by_group.items()))


class _Run:
    """One model under one workload."""

    def __init__(self, graph: Graph, workload: Workload, recompute: Recompute) -> None:
        self.graph = graph
        self.recompute = recompute
        self.element = DTYPE_BYTES[workload.dtype]
        self.bindings = workload.sequences
        labels = sublayer_labels(graph)
        self.labels = {layer: layer_label(layer, labels) for layer in counts(graph.stack)}
        behind = len(graph.carried) + len(graph.invariants)
        self.n_pending = len(next(iter(self.labels)).graph.inputs) - behind - 1  # what is handed on before the stream
        self.done: dict[Step, tuple[tuple[Entry, ...], Border]] = {}

    def whole(self) -> Counter[Entry]:
        """Everything that is kept, and how often."""
        graph, logits = self.graph, self.graph.epilogue.outputs
        first = Step(graph.prologue, EMBEDDING, ())
        stream = self.behind(first)
        # Before the first layer nothing is pending or carried, and what all layers read is the stream's beginning.
        start = ((),) * self.n_pending + stream + ((),) * len(graph.carried) + stream * len(graph.invariants)
        steps, border = self.follow(graph.stack, start)
        last = Step(graph.epilogue, HEAD, border[: self.n_pending + 1])
        loss = Value((), "loss")
        ends = OpGraph(logits, (loss,), (Node(CrossEntropy(), logits, (loss,)),))
        steps.update([first, last, Step(ends, LOSS, self.behind(last))])
        found: Counter[Entry] = Counter()
        for step, times in steps.items():
            self.behind(step)
            for entry in self.done[step][0]:
                found[entry] += times
        return found

    def follow(self, stack: tuple[Stack, ...], border: Border) -> tuple[Counter[Step], Border]:
        """The steps of a stack behind `border`, each with how often it is taken, and the border behind them."""
        steps: Counter[Step] = Counter()
        for element in stack:
            if isinstance(element, Use):
                layer = element.layer
                step = Step(layer.graph, self.labels[layer], border, self.recompute)
                steps[step] += 1
                border = self.behind(step)
            else:
                more, border = self.repeat(element, border)
                steps.update(more)
        return steps, border

    def repeat(self, element: Repeat, border: Border) -> tuple[Counter[Step], Border]:
        """Rounds until a border comes round again; then as many more as that says."""
        borders, rounds = [border], list[Counter[Step]]()
        while len(rounds) < element.count:
            steps, border = self.follow(element.body, border)
            rounds.append(steps)
            if border in borders:
                break
            borders.append(border)
        else:
            return _sum((steps, 1) for steps in rounds), border
        start = borders.index(border)
        cycle = rounds[start:]
        laps, left = divmod(element.count - start, len(cycle))
        weighed = [(steps, 1) for steps in rounds[:start]]
        weighed += [(steps, laps + (i < left)) for i, steps in enumerate(cycle)]
        return _sum(weighed), borders[start + left]

    def behind(self, step: Step) -> Border:
        """The border behind a step, which is taken if it is new."""
        if step not in self.done:
            self.done[step] = self.take(step)
        return self.done[step][1]

    def take(self, step: Step) -> tuple[tuple[Entry, ...], Border]:
        """Run a program on sizes: what it keeps, its own and what it was handed, and what it hands on."""
        tape, border = Tape(self.element), self.added_up(step)
        buffers = {slot: Buffer(slot.tensor.name, Const(slot.tensor.n_bytes), slot.wide) for slot in chain(*border)}
        for value, slots in zip(step.program.inputs, border, strict=False):
            tape.put(value, *(buffers[slot] for slot in slots))
        for node in step.program.nodes:
            tape.maker = node.op.label
            node.op.retain(tape, node.inputs, node.outputs)
        kept = tape.kept
        if step.recompute != "none":
            kept = dict.fromkeys([*buffers.values(), *(tape.products if step.recompute == "selective" else ())])
        handed = {buffer: slot for slot, buffer in buffers.items()}

        def slot_of(buffer: Buffer) -> Slot:
            slot = handed.get(buffer) or Slot(step.group, self.tensor(buffer), buffer.wide)
            return replace(slot, kept=slot.kept or buffer in kept)

        entries = [slot_of(buffer) for buffer in kept if buffer not in handed or not handed[buffer].kept]
        passed = [tape.places(value) for value in step.program.outputs]
        passed += [tuple(buffers[slot] for slot in slots) for slots in self.invariant(border)]
        numbers = {buffer: number for number, buffer in enumerate(dict.fromkeys(chain(*passed)))}
        after = (tuple(replace(slot_of(b), number=numbers[b]) for b in places) for places in passed)
        return tuple((slot.group, slot.tensor) for slot in entries), tuple(after)

    def invariant(self, border: Border) -> Border:
        """What stays beside the carry from layer to layer; the ends of the model have none of it."""
        return border[self.n_pending + 1 + len(self.graph.carried) :]

    def added_up(self, step: Step) -> Border:
        """The border as the program meets it: before a layer that is recomputed in full, with nothing pending."""
        pending, rest = step.border[: self.n_pending], step.border[self.n_pending :]
        if step.recompute != "full" or not any(pending):
            return step.border
        (stream,) = rest[0]
        wide = stream.wide
        size = mul(numel(step.program.inputs[self.n_pending].axes), Tape(self.element).width(wide))
        added = self.tensor(Buffer(stream.tensor.name, size, maker="add"))
        return (*(() for _ in pending), (Slot(step.group, added, wide, number=-1),), *rest[1:])

    def tensor(self, buffer: Buffer) -> SavedTensor:
        return SavedTensor(buffer.maker, buffer.name, str(buffer.n_bytes), buffer.n_bytes.at(self.bindings), 1)


def _sum(weighed: Iterable[tuple[Counter[Step], int]]) -> Counter[Step]:
    total: Counter[Step] = Counter()
    for steps, times in weighed:
        for step, count in steps.items():
            total[step] += times * count
    return total
