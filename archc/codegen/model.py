"""The view of model.py: everything that its template prints, read from the lowered graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from archc.codegen.class_view import ClassView
from archc.codegen.classes import Classes
from archc.codegen.members import members
from archc.codegen.programs import BODY, Names, Part, Program, annotation, parts
from archc.ir.graph import Graph, Node, Stack, Use, counts, op_graphs
from archc.ir.size import Size
from archc.ir.values import State, Weight
from archc.ops.attention import CONTEXT

DEFAULT_CONTEXT = 2048
INIT_LAYERS = f"{' ' * BODY}for layer in self._layers():\n{' ' * BODY}    layer.init_weights()"


@dataclass(frozen=True)
class ModelView:
    """What templates/model.py.jinja prints."""

    name: str
    doc: tuple[str, ...]
    imports: tuple[str, ...]
    spec_hash: str
    vocab: int
    context: int
    context_comment: str
    n_residual_adds: int
    scaled_init: bool
    no_decay: tuple[str, ...]
    keep_fp32: tuple[str, ...]
    constructor: tuple[str, ...]
    tied: bool
    initialise: tuple[str, ...]
    start: tuple[str, ...]
    carry: str
    pending: bool  # whether a layer hands on its last branch unadded
    arguments: str
    shared: tuple[tuple[str, str, int], ...]  # name, class, copies
    stack_parameters: str
    prefix: int
    end: tuple[str, ...]
    capacity: str
    layer_type: str
    stack: tuple[str, ...]
    classes: tuple[ClassView, ...]


def model_view(graph: Graph, names: Names, doc: Iterable[str], spec_hash: str) -> ModelView:
    """Print every part of the model into `names` (which collects imports and kernels) and give the view."""
    classes = Classes(names)
    for layer in counts(graph.stack):
        classes.add(layer)
    first, last = parts(graph.prologue, ()), parts(graph.epilogue, ())
    start, end = members(first.own, names), members(last.own, names)
    layer_inputs = next(iter(counts(graph.stack))).graph.inputs
    carry = [value.name or "h" for value in layer_inputs[: len(layer_inputs) - len(graph.invariants)]]
    stream = carry[: len(graph.epilogue.inputs)]
    absent = {v.name or "": annotation(v, names) for v in layer_inputs if v.name in (*stream[:-1], *graph.carried)}
    shared = _shared(graph, classes)
    settings = graph.settings
    loop = [*(_init_all(name, class_name) for name, class_name, _ in shared), INIT_LAYERS]
    return ModelView(
        name=settings.name,
        doc=tuple(doc),
        imports=(),
        spec_hash=spec_hash,
        vocab=settings.vocab.size.value,
        context=settings.context or DEFAULT_CONTEXT,
        context_comment="" if settings.context else "  # the spec names none",
        n_residual_adds=settings.n_residual_adds,
        scaled_init=any(w.init.residual_out for g in op_graphs(graph) for n in g.nodes for w in n.op.weights()),
        no_decay=_suffixes(graph, lambda weight: not weight.decay),
        keep_fp32=_suffixes(graph, lambda weight: weight.keep_fp32),
        constructor=(*start.constructor, *end.constructor),
        tied=settings.tied,
        initialise=(*start.initialise, *loop, *end.initialise),
        start=(
            *_start(first, names, stream[-1], absent),
            *(f"{' ' * BODY}{name} = {stream[-1]}" for name in graph.invariants),
        ),
        carry=", ".join(carry),
        pending=len(stream) > 1,
        arguments=", ".join([*carry, *graph.invariants]),
        shared=shared,
        prefix=settings.prefix,
        stack_parameters=", ".join(f"{name}: list[{class_name}]" for name, class_name, _ in shared),
        end=_end(last, names, stream),
        capacity="context" if any(map(_unbounded, _states(graph))) else "None",
        layer_type=" | ".join(view.name for view in classes.layers),
        stack=tuple(_stack(graph.stack, classes, 4)),
        classes=(*classes.layers, *classes.by_identity.values(), *classes.uses.values()),
    )


def _init_all(name: str, class_name: str) -> str:
    pad = " " * BODY
    check = f"{pad}    assert isinstance(module, {class_name})"
    return f"{pad}for module in self.{name}:\n{check}\n{pad}    module.init_weights()"


def _shared(graph: Graph, classes: Classes) -> tuple[tuple[str, str, int], ...]:
    """(name, class, copies) of every shared module."""
    scopes = [scope for layer in counts(graph.stack) for scope in layer.scopes if scope.shared is not None]
    found = {s.shared.name: (classes.by_identity[s.identity].name, s.shared.copies) for s in scopes if s.shared}
    return tuple((name, class_name, copies) for name, (class_name, copies) in found.items())


def _start(part: Part, names: Names, stream: str, absent: dict[str, str]) -> tuple[str, ...]:
    """Statements up to the first layer: the stream, and what there is none of yet, by name and type."""
    program = Program(part, names, {part.inputs[0]: "tokens"})
    empty = [f"{' ' * BODY}{name}: {kind} | None = None" for name, kind in absent.items()]
    return (*empty, *program.body(stream))


def _end(part: Part, names: Names, stream: list[str]) -> tuple[str, ...]:
    """Statements from the stream that the last layer leaves to `logits`."""
    return Program(part, names, dict(zip(part.inputs, stream, strict=True))).body("logits: Tensor")


def _states(graph: Graph) -> Iterator[State]:
    for op_graph in op_graphs(graph):
        for node in op_graph.nodes:
            yield from node.op.state()


def _unbounded(state: State) -> bool:
    """Whether a state grows with the context without end."""
    size: Size = state.numel
    far = 1 << 62
    return size.at({CONTEXT.name: far}) != size.at({CONTEXT.name: far + 1})


def _suffixes(graph: Graph, chosen: Callable[[Weight], bool]) -> tuple[str, ...]:
    """Path endings that single out the chosen weights: `A_log`, `dt_norm.weight`."""
    weights = [(node, w) for g in op_graphs(graph) for node in g.nodes for w in node.op.weights()]
    yes = sorted({w.path for _, w in weights if chosen(w)})
    no = [_full_path(node, w) for node, w in weights if not chosen(w)]
    for suffix in yes:
        if any(f".{path}".endswith(f".{suffix}") for path in no):
            raise ValueError(f"{suffix} does not single out its weights")
    return tuple(yes)


def _full_path(node: Node, weight: Weight) -> str:
    return f"{node.scope}.{weight.path}" if node.scope else weight.path


def _stack(stack: tuple[Stack, ...], classes: Classes, indent: int) -> Iterator[str]:
    for element in stack:
        if isinstance(element, Use):
            yield f"{' ' * indent}yield {classes.construct(element.layer)}"
        else:
            yield f"{' ' * indent}for _ in range({element.count}):"
            yield from _stack(element.body, classes, indent + 4)
