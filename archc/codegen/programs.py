"""Forward programs: the ops of a scope as Python statements under the names that the author gave."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from archc.codegen.layout import is_call, statement
from archc.ir.graph import Node, OpGraph, Scope, Shared
from archc.ir.op import Kernel, Printer
from archc.ir.values import ANNOTATIONS, State, Value

BODY = 8  # columns of a method's body
RESULT = "out"  # what a program returns, if its author gave it no name
USE = "use"  # the argument with the weights that a use of a shared module brings
MODULES = ("self.", f"{USE}.")  # how calls of modules begin
NAME = re.compile(r"\w+")


@dataclass
class Names:
    """What one file imports and which kernel variants it calls; filled while its code is printed."""

    kernel_name: Callable[[Kernel], str]
    imports: set[tuple[str, str]] = field(default_factory=set)
    kernels: dict[str, Kernel] = field(default_factory=dict)

    def kernel(self, kernel: Kernel, prefix: str = "") -> str:
        """The function of a kernel file, imported."""
        name = self.kernel_name(kernel)
        self.kernels[name] = kernel
        self.imports.add((f".{name}", prefix + name))
        return prefix + name

    def use(self, module: str, name: str) -> str:
        self.imports.add((module, name))
        return name


def annotation(value: Value, names: Names) -> str:
    """The type of a value where modules take or give it."""
    if value.type not in ANNOTATIONS:
        return "Tensor"
    return names.use(*ANNOTATIONS[value.type])


@dataclass(frozen=True)
class Part:
    """A scope of a graph: its own nodes and its children's, in order, and what crosses its border."""

    path: str
    scope: Scope | None
    nodes: tuple[Node, ...]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    children: tuple[Part, ...]
    shared: Shared | None  # the module that it is or lies in, if several layers use that

    @property
    def per_use(self) -> bool:
        """Whether each use of this shared part brings weights of its own."""
        return self.shared is not None and any(node.per_use for node in self.nodes)

    @property
    def own(self) -> tuple[Node, ...]:
        return tuple(node for node in self.nodes if node.scope == self.path)

    @property
    def positional(self) -> bool:
        return any(node.op.positional for node in self.nodes)

    @property
    def state(self) -> tuple[State, ...]:
        return tuple(state for node in self.nodes for state in node.op.state())

    @property
    def name(self) -> str:
        return self.path.rpartition(".")[2]


def parts(graph: OpGraph, scopes: tuple[Scope, ...]) -> Part:
    """The tree of scopes of a graph; its root is the layer itself."""
    return _part(graph, {scope.name: scope for scope in scopes}, "", graph.nodes, graph.inputs, graph.outputs)


def _part(
    graph: OpGraph,
    scopes: dict[str, Scope],
    path: str,
    nodes: tuple[Node, ...],
    inputs: tuple[Value, ...],
    outputs: tuple[Value, ...],
) -> Part:
    depth = len(path.split(".")) if path else 0
    below = dict.fromkeys(".".join(n.scope.split(".")[: depth + 1]) for n in nodes if n.scope != path)
    children = []
    for child in below:
        inside = tuple(n for n in nodes if n.scope == child or n.scope.startswith(child + "."))
        written = {value for node in inside for value in node.outputs}
        read = dict.fromkeys(value for node in inside for value in node.inputs if value not in written)
        elsewhere = {v for n in graph.nodes if n not in inside for v in n.inputs} | set(graph.outputs)
        results = tuple(value for node in inside for value in node.outputs if value in elsewhere)
        children.append(_part(graph, scopes, child, inside, tuple(read), results))
    root = scopes.get(path.split(".")[0])
    return Part(path, scopes.get(path), nodes, inputs, outputs, tuple(children), root.shared if root else None)


class Program:
    """Prints the forward program of one part."""

    def __init__(self, part: Part, names: Names, entry: dict[Value, str] | None = None) -> None:
        self.part = part
        self.names = names
        self.current: dict[Value, str] = dict(entry or {})
        self.inlined: dict[Value, str] = {}
        self.untyped: set[str] = set()  # variables that hold what modules returned
        self.behind: dict[Value, tuple[Value, ...]] = {}  # what the expression of an inlined value reads
        self.steps = self._steps()

    def body(self, target: str = "") -> tuple[str, ...]:
        """The statements; the last one returns the results, or assigns them to `target`."""
        if not self.current:
            self.current = dict(zip(self.part.inputs, self.parameter_names(), strict=True))
        lines: list[str] = []
        for i, step in enumerate(self.steps):
            code, outputs = self._code(step)
            if i == len(self.steps) - 1 and outputs == self.part.outputs:
                return (*lines, *self._last(code, outputs, target))
            if self._inlines(i, code, outputs):
                self.inlined[outputs[0]] = code
                self.behind[outputs[0]] = step.inputs
                continue
            targets = self._targets(i, outputs)
            if code.startswith(MODULES):
                self.untyped.update(NAME.findall(targets))
            lines.append(statement(f"{targets} = {code}", BODY, self._shapes(outputs)))
        results = ", ".join(map(self.operand, self.part.outputs))
        return (*lines, statement(f"{target} = {results}" if target else f"return {results}", BODY))

    def _last(self, code: str, outputs: tuple[Value, ...], target: str) -> tuple[str, ...]:
        """The last step. What a module returns has no type that a checker knows, so it gets a name with one.

        Nor has what operators make of it.
        """
        shapes = self._shapes(outputs)
        untyped = code.startswith(MODULES) or (not is_call(code) and bool(self.untyped & set(NAME.findall(code))))
        if target:
            return (statement(f"{target} = {code}", BODY, shapes),)
        if len(outputs) > 1 or not untyped:
            return (statement(f"return {code}", BODY, shapes),)
        name = outputs[0].name or RESULT
        typed = name if name in self.current.values() else f"{name}: Tensor"
        return statement(f"{typed} = {code}", BODY, shapes), statement(f"return {name}", BODY)

    def parameter_names(self) -> list[str]:
        """A scope's single input is the `h` of its kind's program; several keep their own names."""
        if len(self.part.inputs) == 1:
            return ["h"]
        return [value.name or f"h{i}" for i, value in enumerate(self.part.inputs)]

    def operand(self, value: Value) -> str:
        return self.inlined.get(value) or self.current[value]

    def _steps(self) -> list[Node | Part]:
        """Own nodes and child scopes, in order; a child stands where its first node stands."""
        steps: list[Node | Part] = []
        for node in self.part.nodes:
            child = next((c for c in self.part.children if node in c.nodes), None)
            step: Node | Part = child if child is not None else node
            if step not in steps:
                steps.append(step)
        return steps

    def _code(self, step: Node | Part) -> tuple[str, tuple[Value, ...]]:
        if isinstance(step, Part):
            arguments = [self.operand(value) for value in step.inputs]
            if step.per_use:
                arguments.append(f"{USE}.{step.name}" if self.part.shared else f"self.{step.name}_{USE}")
            if step.positional:
                arguments.append("positions")
            if step.state:
                alone = sum(bool(child.state) for child in self.part.children) == 1 and not self._own_state
                arguments.append("cache" if alone else f"cache.{step.name} if cache else None")
            return f"self.{step.name}({', '.join(arguments)})", step.outputs
        self.names.imports.update(step.op.imports())
        root = USE if self.part.shared and step.per_use else "self"
        operands = [self.operand(value) for value in step.inputs]
        printer = Printer(inputs=operands, kernel=self.names.kernel, root=root)
        return step.op.code(printer), step.outputs

    @property
    def _own_state(self) -> bool:
        return any(node.op.state() for node in self.part.own)

    def _inlines(self, i: int, code: str, outputs: tuple[Value, ...]) -> bool:
        """An unnamed value that one later step of this part reads once is written there."""
        if len(outputs) != 1 or outputs[0].name is not None or not is_call(code):
            return False
        readers = [step for step in self.steps[i + 1 :] if outputs[0] in step.inputs]
        return len(readers) == 1 and outputs[0] not in self.part.outputs

    def _targets(self, i: int, outputs: tuple[Value, ...]) -> str:
        later = {value for step in self.steps[i + 1 :] for value in step.inputs} | set(self.part.outputs)
        while not later >= (behind := {read for value in later for read in self.behind.get(value, ())}):
            later |= behind
        targets = []
        for value in outputs:
            if value not in later:
                targets.append("_")
                continue
            taken = {name for other, name in self.current.items() if other in later and other not in outputs}
            taken |= set(targets)
            stem = value.name or "y"
            name = next(n for n in (stem, *(f"{stem}_{k}" for k in range(2, 99))) if n not in taken)
            self.current[value] = name
            targets.append(name)
        return ", ".join(targets)

    def _shapes(self, outputs: tuple[Value, ...]) -> str:
        shapes = list(dict.fromkeys(value.shape for value in outputs if value.is_tensor))
        if len(shapes) == 1 and len(outputs) > 1:
            return f"{shapes[0]} each" if all(v.is_tensor for v in outputs) else shapes[0]
        return ", ".join(shapes)
