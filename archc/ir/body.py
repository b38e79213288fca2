"""The builder that a layer's forward program runs against: each call appends one op to the layer's graph.

Values get the names that the author of the program gave them: at every call the builder looks at what the variables of
the running `forward` hold by now. A value that never got a name is written where it is used.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType, FrameType

from archc.ir.graph import Node, OpGraph, Scope, Shared
from archc.ir.op import Op
from archc.ir.size import Size, as_size
from archc.ir.values import Axis, Value


class Body:
    """Collects the nodes of one layer.

    `d_model` is the model's width; `carried` is what layers hand on beside the stream, by name; `stacked` is set while
    an expert's program runs over all experts at once, and then linear projections become one weight per expert.
    """

    def __init__(self, d_model: Axis) -> None:
        self.d_model = d_model
        self.stacked: StackedExperts | None = None
        self.carried: dict[str, Value] = {}
        self._nodes: list[Node] = []
        self._scopes: list[Scope] = []
        self._path: list[str] = []
        self._programs: list[CodeType | None] = []
        self._names: dict[Value, str] = {}
        self._per_use = False

    def axis(self, name: str, size: Size | int) -> Axis:
        """A named axis; it keeps the expression that defines its size."""
        return Axis(name, as_size(size))

    def apply(self, op: Op, *inputs: Value) -> tuple[Value, ...]:
        """Append `op`; its outputs in order."""
        self._learn_names()
        outputs = tuple(Value(result.axes, type=result.type) for result in op.results(*inputs))
        self._nodes.append(Node(op, inputs, outputs, ".".join(self._path), self._per_use))
        return outputs

    def one(self, op: Op, *inputs: Value) -> Value:
        """Append an op with a single output."""
        (output,) = self.apply(op, *inputs)
        return output

    @contextmanager
    def scope(
        self,
        name: str,
        class_name: str,
        doc: str,
        identity: object,
        program: CodeType | None = None,
        shared: Shared | None = None,
    ) -> Iterator[None]:
        """Run a program as the submodule `name`; `program` is the code whose variables name the values."""
        self._learn_names()
        self._path.append(name)
        self._programs.append(program)
        self._scopes.append(Scope(".".join(self._path), class_name, doc, identity, shared))
        try:
            yield
        finally:
            self._path.pop()
            self._programs.pop()

    @contextmanager
    def per_use(self) -> Iterator[None]:
        """Weights made inside belong to the layer that uses a shared module, not to the module."""
        before, self._per_use = self._per_use, True
        try:
            yield
        finally:
            self._per_use = before

    def finish(self, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> tuple[OpGraph, tuple[Scope, ...]]:
        """The graph, with every value under its author's name."""
        renamed: dict[Value, Value] = {}

        def named(value: Value) -> Value:
            if value not in renamed:
                name = self._names.get(value, value.name)
                renamed[value] = value if name == value.name else Value(value.axes, name, value.type, value.serial)
            return renamed[value]

        read = {value for node in self._nodes for value in node.inputs} | set(outputs)
        replaced = [node for node in self._nodes if node.outputs[0].type == "kv" and node.outputs[0] not in read]
        nodes = tuple(
            Node(node.op, tuple(map(named, node.inputs)), tuple(map(named, node.outputs)), node.scope, node.per_use)
            for node in self._nodes
            if node not in replaced  # keys and values that later ones replaced before any layer read them
        )
        return OpGraph(tuple(map(named, inputs)), tuple(map(named, outputs)), nodes), tuple(self._scopes)

    def call_it(self, value: Value, name: str) -> Value:
        """Name a value that no variable of a program holds."""
        self._names.setdefault(value, name)
        return value

    def _learn_names(self) -> None:
        """Look at the variables of the running programs and their helpers in the same file, outermost first.

        The first name that a value had stays.
        """
        running = self._programs[-1] if self._programs else None
        if running is None:
            return
        programs: list[FrameType] = []
        frame: FrameType | None = sys._getframe(2)
        while frame is not None:
            if running.co_name == frame.f_code.co_name or running.co_filename == frame.f_code.co_filename:
                programs.append(frame)
            if frame.f_code is running:
                break
            frame = frame.f_back
        for program in reversed(programs):
            for name, held in program.f_locals.items():
                if isinstance(held, Value):
                    self._names.setdefault(held, name)


class StackedExperts:
    """While it is `Body.stacked`, weights gain a leading expert axis and rows arrive grouped by expert."""

    def __init__(self, name: str, experts: Axis, top_k: int, plan: Value, projection: Callable[..., Op]) -> None:
        self.name = name
        self.projection = projection
        self.experts = experts
        self.top_k = top_k
        self.plan = plan
