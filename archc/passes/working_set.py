"""The working set: bytes that are alive at once while one layer runs, forward without gradients or backward.

Forward, a value lives until its last reader has run; one with a name, as a variable of the program does: until the name
is given again or its scope returns. Backward, gradients live from the first reader of a value (met last to first) to
the op that made it, saved storages until the op that reads them has run, and gradients of weights from then on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from archc.ir.graph import Graph, Node, OpGraph
from archc.ir.tape import Buffer, Tape
from archc.ir.values import Value, numel
from archc.passes.workload import DTYPE_BYTES, Workload

FP32 = DTYPE_BYTES["fp32"]


@dataclass(frozen=True, slots=True)
class WorkingSet:
    """Most bytes at once in a program: `forward` without gradients, what it is handed included; `backward` with what
    the program has saved and the gradients of its weights, which are `weight_gradients` at its end.
    """

    forward: int
    backward: int
    saved: int
    weight_gradients: int


def of_program(graph: Graph, program: OpGraph, bound: Mapping[str, int], workload: Workload) -> WorkingSet:
    """Of a program of the lowered `graph` under bindings of B, T, P and context."""
    return _Program(graph, program, bound, workload).result()


def begin(graph: Graph, program: OpGraph, workload: Workload) -> Tape:
    """A tape with the inputs of a program on it. The stream may have 32 bits; what is pending or embedded does not."""
    tape, stream = Tape(DTYPE_BYTES[workload.dtype]), len(graph.epilogue.inputs) - 1
    for i, value in enumerate(program.inputs):
        tape.new(value, wide=graph.settings.residual_fp32 and i == stream)
    return tape


class _Program:
    def __init__(self, graph: Graph, program: OpGraph, bound: Mapping[str, int], workload: Workload) -> None:
        self.program, self.bound, self.workload = program, bound, workload
        self.tape = begin(graph, program, workload)
        self.saved_by: list[list[Buffer]] = []  # by node: what no earlier node keeps as well
        given = {buffer for value in program.inputs for buffer in self.tape.places(value)}
        for node in program.nodes:
            known = set(self.tape.kept)
            node.op.retain(self.tape, node.inputs, node.outputs)
            self.saved_by.append([buffer for buffer in self.tape.kept if buffer not in known | given])

    def result(self) -> WorkingSet:
        saved = sum(self.size(buffer) for new in self.saved_by for buffer in new)
        gradients = sum(self.weight_gradients(node) for node in self.program.nodes)
        return WorkingSet(self.forward(), self.backward(), saved, gradients)

    def size(self, buffer: Buffer) -> int:
        return buffer.n_bytes.at(self.bound)

    def forward(self) -> int:
        nodes = self.program.nodes
        last: dict[Value, int] = dict.fromkeys(self.program.outputs, len(nodes))
        for i, node in enumerate(nodes):
            last |= {value: max(last.get(value, 0), i) for value in node.inputs}
            for value in node.outputs:
                if value.name:
                    last[value] = max(last.get(value, 0), self.scope_end(value, i))
        alive = {value: self.tape.places(value) for value in self.program.inputs}
        most = 0
        for i, node in enumerate(nodes):
            alive |= {value: self.tape.places(value) for value in node.outputs}
            most = max(most, sum(map(self.size, {buffer for buffers in alive.values() for buffer in buffers})))
            for value in [value for value in alive if last.get(value, -1) <= i and value not in self.program.inputs]:
                del alive[value]
        return most

    def scope_end(self, value: Value, start: int) -> int:
        """The node after which a variable is gone: where its name is given again, or its scope's last."""
        nodes = self.program.nodes
        scope = nodes[start].scope
        end = start
        for i in range(start + 1, len(nodes)):
            if nodes[i].scope != scope and not nodes[i].scope.startswith(scope + "."):
                continue
            end = i
            if nodes[i].scope == scope and any(other.name == value.name for other in nodes[i].outputs):
                break
        return end

    def backward(self) -> int:
        live = {value: self.gradient(value) for value in self.program.outputs}
        kept = sum(self.size(buffer) for new in self.saved_by for buffer in new)
        weights = most = 0
        for node, freed in zip(reversed(self.program.nodes), reversed(self.saved_by), strict=True):
            arriving = [live.pop(value, 0) for value in node.outputs]
            fresh = {v: self.gradient(v) for v in node.inputs if v.type == "activation" and not self.tape.absent(v)}
            weights += self.weight_gradients(node)
            passed_on = node.op.is_view and len(node.outputs) == 1
            during = sum(live.values()) + sum(fresh.values()) + (0 if passed_on else sum(arriving))
            most = max(most, kept + weights + during)
            kept -= sum(map(self.size, freed))
            live |= fresh
        return most

    def gradient(self, value: Value) -> int:
        each = self.tape.width(self.tape.wide(value))
        return numel(value.axes).at(self.bound) * each

    def weight_gradients(self, node: Node) -> int:
        size = DTYPE_BYTES[self.workload.weights]
        return sum(weight.numel * (max(size, FP32) if weight.keep_fp32 else size) for weight in node.op.weights())
