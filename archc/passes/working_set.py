"""The working set: bytes that are alive at once while one layer runs, forward without gradients or backward.

Forward, a value lives until its last reader has run; one with a name, as a variable of the program does: until the name
is given again or its scope returns. Backward, gradients live from the first reader of a value (met last to first) to
the op that made it, saved storages until the op that reads them has run, and gradients of weights from then on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from archc.ir.graph import Graph, Node, OpGraph
from archc.ir.size import Size, add
from archc.ir.tape import Buffer, Tape
from archc.ir.values import Value, numel
from archc.passes.grouping import Group
from archc.passes.workload import DTYPE_BYTES, Workload, stored_width

FP32 = DTYPE_BYTES["fp32"]


def begin(graph: Graph, program: OpGraph, workload: Workload) -> Tape:
    """A tape with the inputs of a program on it. The stream may have 32 bits; what is pending or embedded does not."""
    tape, stream = Tape(DTYPE_BYTES[workload.dtype]), len(graph.epilogue.inputs) - 1
    for i, value in enumerate(program.inputs):
        tape.new(value, wide=graph.settings.residual_fp32 and i == stream)
    return tape


def of_group(graph: Graph, group: Group, workload: Workload) -> WorkingSet:
    """Of one part of a group of the lowered `graph`; what depends on dtypes alone is found once."""
    return _found(graph, group, replace(workload, context=1, batch=1))


@dataclass(frozen=True, slots=True)
class Step:
    """An op's backward: gradients that come in and go out, what it frees, and what its kernel holds for a while.

    `weights` are bytes of the gradients of the own weights of the group so far. Those of a shared module add up
    elsewhere: those of this use, `lent`, are gone behind it.
    """

    arriving: tuple[Value, ...]
    fresh: tuple[Value, ...]
    freed: tuple[Buffer, ...]
    weights: int
    lent: int
    workspace: Size
    passes_on: bool  # the gradient of a view lies where it came


@dataclass(frozen=True, slots=True, eq=False)
class WorkingSet:
    """What is alive when, in a program; the methods count its bytes under bindings of B, T, P and context."""

    program: OpGraph
    alive: tuple[frozenset[Buffer], ...]  # while each op runs forward without gradients
    beside: tuple[Size, ...]  # what its kernel holds then, beside operands and results
    steps: tuple[Step, ...]  # last op first
    widths: Mapping[Value, int]
    weight_gradients: int

    def forward(self, bound: Mapping[str, int]) -> int:
        """Most bytes at once without gradients, what the program is handed included."""
        sizes = {buffer: buffer.n_bytes.at(bound) for buffer in frozenset().union(*self.alive)}
        return max(
            sum(sizes[buffer] for buffer in buffers) + beside.at(bound)
            for buffers, beside in zip(self.alive, self.beside, strict=True)
        )

    def backward(self, bound: Mapping[str, int]) -> int:
        """Most bytes at once of gradients, those of weights included, and of what the program itself has saved."""
        gradient = {value: numel(value.axes).at(bound) * width for value, width in self.widths.items()}
        freed = [sum(buffer.n_bytes.at(bound) for buffer in step.freed) for step in self.steps]
        live = {value: gradient[value] for value in self.program.outputs}
        kept, most = sum(freed), 0
        for step, gone in zip(self.steps, freed, strict=True):
            arriving = sum(live.pop(value, 0) for value in step.arriving)
            fresh = {value: gradient[value] for value in step.fresh}
            during = sum(live.values()) + sum(fresh.values()) + (0 if step.passes_on else arriving)
            most = max(most, kept + step.weights + during + step.lent + step.workspace.at(bound))
            kept -= gone
            live |= fresh
        return most


@lru_cache(maxsize=64)
def _found(graph: Graph, group: Group, workload: Workload) -> WorkingSet:
    program, owned = group.program, {id(node) for _, node in group.stored}
    tape = begin(graph, program, workload)
    known = {buffer for value in program.inputs for buffer in tape.places(value)}
    saved_by: list[tuple[Buffer, ...]] = []  # by op: what no earlier one keeps as well
    workspaces = [node.op.workspace(node.inputs, node.outputs) for node in program.nodes]
    beside: list[Size] = []
    for node, (forward, _) in zip(program.nodes, workspaces, strict=True):
        node.op.retain(tape, node.inputs, node.outputs)
        saved_by.append(tuple(buffer for buffer in tape.kept if buffer not in known))
        known.update(tape.kept)
        operands = {buffer for value in (*node.inputs, *node.outputs) for buffer in tape.places(value)}
        beside.append(add(forward, *(buffer.n_bytes for buffer in saved_by[-1] if buffer not in operands)))
    steps, weights = [], 0
    for node, freed, (_, workspace) in zip(*map(reversed, (program.nodes, saved_by, workspaces)), strict=True):
        gradients = _weight_gradients(node, workload)
        own = id(node) in owned
        weights += gradients * own
        fresh = tuple(value for value in node.inputs if value.type == "activation" and not tape.absent(value))
        passes_on = node.op.is_view and len(node.outputs) == 1
        steps.append(Step(node.outputs, fresh, freed, weights, gradients * (not own), workspace, passes_on))
    values = {*program.outputs, *(value for step in steps for value in step.fresh)}
    widths = {value: tape.width(tape.wide(value)) for value in values}
    return WorkingSet(program, tuple(_alive(program, tape)), tuple(beside), tuple(steps), widths, weights)


def _weight_gradients(node: Node, workload: Workload) -> int:
    trained = (weight for weight in node.op.weights() if not weight.int8)
    return sum(weight.numel * stored_width(weight, workload.weights) for weight in trained)


def _alive(program: OpGraph, tape: Tape) -> Iterator[frozenset[Buffer]]:
    last: dict[Value, int] = dict.fromkeys(program.outputs, len(program.nodes))
    for i, node in enumerate(program.nodes):
        last |= {value: max(last.get(value, 0), i) for value in node.inputs}
        last |= {value: max(last.get(value, 0), _scope_end(program, value, i)) for value in node.outputs if value.name}
    values = dict.fromkeys(program.inputs)
    for i, node in enumerate(program.nodes):
        values |= dict.fromkeys(node.outputs)
        yield frozenset(buffer for value in values for buffer in tape.places(value))
        values = {value: None for value in values if last.get(value, -1) > i or value in program.inputs}


def _scope_end(program: OpGraph, value: Value, start: int) -> int:
    """The op after which a variable is gone: where its name is given again, or its scope's last."""
    scope, end = program.nodes[start].scope, start
    for i in range(start + 1, len(program.nodes)):
        node = program.nodes[i]
        if node.scope == scope or node.scope.startswith(scope + "."):
            end = i
            if node.scope == scope and any(other.name == value.name for other in node.outputs):
                break
    return end
