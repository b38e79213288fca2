"""Where each figure of a report is from. Nothing here prints, exits or writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import get_args

from archc.compiler import Model, analyse
from archc.grammar.tree import Let, Setting
from archc.ir.graph import Graph, Layer
from archc.passes import terms
from archc.passes.convention import Convention, training_flops
from archc.passes.flops import flops
from archc.passes.grouping import groups, sublayers
from archc.passes.params import params
from archc.passes.saved import saved
from archc.passes.spelling import words
from archc.passes.terms import Binding, Term
from archc.passes.workload import Workload
from archc.report.explanation import Explanation, Line
from archc.report.sizing import Request
from archc.report.steps import STEPS, Facts
from archc.sizing import size

SAVED = "saved"
Terms = Callable[[Graph, Workload], Iterator[Term]]


@dataclass(frozen=True, slots=True)
class Topic:
    """What a figure means, its unit, and the terms that add up to it; `lowered` ones are of the graph as built."""

    about: str
    unit: str
    terms: tuple[Terms, ...] = ()
    lowered: bool = False


TOPICS = {
    "params": Topic(
        "every stored element, a tied head once, a shared module once for each copy.", "parameters", (terms.parameters,)
    ),
    "active": Topic(
        "what one token uses: top_k / n_experts of routed experts, all of everything else, embedding and head too.",
        "parameters",
        (terms.active,),
    ),
    "weights": Topic("bytes of every stored tensor; some are never narrower than fp32.", "B", (terms.weight_bytes,)),
    "kv": Topic("bytes of keys and values of one sequence at the end of the context.", "B", (terms.kv,)),
    "state": Topic(
        "bytes of what recurrences and convolutions (d_conv - 1 columns) keep of one sequence, whatever its length.",
        "B",
        (terms.ssm, terms.conv),
    ),
    "flops": Topic(
        "model FLOPs of one sequence, forward; a multiply-add is 2, attention counts the pairs that are visible.",
        "FLOP",
        (terms.forward,),
    ),
    "kernels": Topic(
        "FLOPs that the generated kernels execute for one sequence, forward and backward, what backward computes a "
        "second time included.",
        "FLOP",
        (terms.kernels, terms.backward),
        lowered=True,
    ),
    "decode": Topic("model FLOPs of the last token of the context, after all others.", "FLOP", (terms.decode,)),
    SAVED: Topic(
        "bytes that a training step of --batch sequences keeps between forward and backward.", "B", lowered=True
    ),
    **{name: Topic(steps.about, steps.unit) for name, steps in STEPS.items()},
}


def explanation(model: Model, workload: Workload, request: Request, topic: str) -> Explanation:
    """Of one of `TOPICS`."""
    asked = TOPICS[topic]
    if topic in STEPS:
        facts = Facts(analyse(model, workload), size(model, workload, request), _training(model, workload))
        return Explanation(topic, asked.about, asked.unit, steps=tuple(STEPS[topic].rows(facts)))
    graph = model.lowered if asked.lowered else model.graph
    found = tuple(term for of in asked.terms for term in of(graph, workload))
    if topic == SAVED:
        found = tuple(_saved(model, workload, request))
    bindings = {binding.name: binding for term in found for binding in term.bindings}
    origins = tuple((binding, _setting_lines(model, binding)) for binding in bindings.values())
    names = {term.group for term in found}
    layers = [(group.name, _layer_lines(model, group.layers)) for group in groups(graph) if group.name in names]
    return Explanation(
        topic, asked.about, asked.unit, found, origins=origins, layers=tuple(item for item in layers if item[1])
    )


def _training(model: Model, workload: Workload) -> dict[Convention, int]:
    tables = params(model.graph, workload), flops(model.graph, workload)
    return {name: training_flops(name, model.graph, workload, *tables) for name in get_args(Convention)}


def _saved(model: Model, workload: Workload, request: Request) -> Iterator[Term]:
    for group in saved(model.lowered, workload, request.training.recompute).groups:
        for tensor in group.tensors:
            name = f"{tensor.op}: {tensor.name}"
            yield Term(group.name, tensor.times, name, tensor.formula, (), "", tensor.n_bytes)


def _setting_lines(model: Model, binding: Binding) -> tuple[Line, ...]:
    """The settings of that name; what is given beside the spec has no line in it."""
    said = [s for s in model.spec.statements if isinstance(s, Setting) and s.ident.name == binding.name]
    return tuple(_line(model, statement.span.start) for statement in said)


def _layer_lines(model: Model, layers: tuple[Layer, ...]) -> tuple[Line, ...]:
    """The lines that name the kinds of these layers, or a `let` that stands for one."""
    wanted = set[str]()
    for scope in (scope for layer in layers for scope in sublayers(layer)):
        wanted.add(scope.shared.name if scope.shared else str(getattr(scope.identity, "keyword", "")))
    for statement in model.spec.statements:
        if isinstance(statement, Let) and words(statement.span.text.partition("=")[2]) & wanted:
            wanted.add(statement.ident.name)
    found = dict[int, Line]()
    for statement in model.spec.statements:
        start, end = (model.spec.source.position(place)[0] for place in (statement.span.start, statement.span.end))
        for number in range(start, end + 1):
            line = _numbered(model, number)
            if words(line.text) & wanted:
                found[number] = line
    return tuple(found.values())


def _line(model: Model, offset: int) -> Line:
    return _numbered(model, model.spec.source.position(offset)[0])


def _numbered(model: Model, number: int) -> Line:
    return Line(number, " ".join(model.spec.source.line(number).partition("#")[0].split()))
