"""The lowerings on Jamba's layers, before and after, and the laws that all of them keep."""

from __future__ import annotations

import difflib
import random
from collections import Counter
from dataclasses import replace

import pytest

from archc import compiler
from archc.diagnostics import Source
from archc.ir.graph import Graph, OpGraph, counts, op_graphs
from archc.ir.text import graph_text, program_lines
from archc.ir.verify import verify
from archc.passes.flops import flops
from archc.passes.params import params
from archc.passes.pipeline import PIPELINE, Pass, lower
from archc.passes.state import state
from archc.passes.workload import Workload
from tests.goldens.golden import check
from tests.models.cases import MODELS, SPECS

WORKLOAD = Workload(context=11, batch=3)
JAMBA, SAMBA = (next(p for p in SPECS if p.stem == name).read_text("utf-8") for name in ("jamba_v0_1", "samba_421m"))
PASSES = [pytest.param(step, id=step.name) for step in PIPELINE]


def graph_of(text: str) -> Graph:
    return compiler.load(Source("spec", text)).graph


def before(step: Pass, graph: Graph) -> Graph:
    """The graph that a pass gets in the pipeline."""
    for earlier in PIPELINE[: PIPELINE.index(step)]:
        graph = earlier.run(graph)
    return graph


def facts(graph: Graph) -> dict[str, object]:
    """All that lowering must not change: tensors with everything about them, state, FLOPs, the shape of the stack."""
    programs = [(layer.graph, times) for layer, times in counts(graph.stack).items()]
    weights = Counter(
        (times, node.scope, weight)
        for op_graph, times in [(graph.prologue, 1), *programs, (graph.epilogue, 1)]
        for node in op_graph.nodes
        for weight in node.op.weights()
    )
    return {
        "weights": weights,
        "params": params(graph, WORKLOAD).total,
        "active": params(graph, WORKLOAD).active,
        "state": state(graph, WORKLOAD),
        "flops": flops(graph, WORKLOAD),
        "layers": [(layer.text, times) for layer, times in counts(graph.stack).items()],
    }


def changed(step: Pass, graph: Graph) -> str:
    """What a pass changes in a mamba layer, an attention layer and the head, with one line around it."""
    old, new = before(step, graph), step.run(before(step, graph))
    names = ["prologue", *(layer.text for layer in counts(graph.stack)), "epilogue"]
    sections, seen = [], set()
    for name, a, b in zip(names, op_graphs(old), op_graphs(new), strict=True):
        lines = difflib.unified_diff(list(program_lines(a)), list(program_lines(b)), lineterm="", n=1)
        kind = name.split(" + ")[0]
        text = "\n".join("..." if line.startswith("@@") else line for line in list(lines)[3:])
        if text and kind not in seen:
            seen.add(kind)
            sections.append(f"{name}\n{text}\n")
    return "\n".join(sections)


@pytest.mark.parametrize("step", PASSES)
def test_before_and_after(step: Pass) -> None:
    """On Jamba or, for what has to do with rotary positions, on Samba."""
    check(f"passes/{step.name}.txt", changed(step, graph_of(JAMBA)) or changed(step, graph_of(SAMBA)))


@pytest.mark.parametrize("step", PASSES)
def test_a_pass_says_what_it_does(step: Pass) -> None:
    doc = __import__(step.run.__module__, fromlist=["__doc__"]).__doc__ or ""
    assert "Before:" in doc
    assert "After:" in doc
    assert step.reason


@pytest.mark.parametrize("step", PASSES)
@pytest.mark.parametrize("name", MODELS)
def test_a_pass_keeps_the_laws(name: str, step: Pass) -> None:
    graph = before(step, graph_of(MODELS[name]))
    text = graph_text(graph)
    once = verify(step.run(graph), step.name)
    assert graph_text(graph) == text, "a pass rebuilds, it never changes what it got"
    assert graph_text(step.run(once)) == graph_text(once), "a second run changes nothing"
    assert facts(once) == facts(graph)


@pytest.mark.parametrize("name", MODELS)
def test_the_pipeline_keeps_the_laws(name: str) -> None:
    graph = graph_of(MODELS[name])
    lowered = lower(graph)
    assert facts(lowered) == facts(graph)
    assert graph_text(lower(lowered)) == graph_text(lowered)


@pytest.mark.parametrize("name", MODELS)
def test_passes_in_any_order_keep_graphs_valid(name: str) -> None:
    """The order decides how much is fused, never whether the result means the same."""
    graph = graph_of(MODELS[name])
    expected = facts(graph)
    for seed in range(3):
        shuffled, now = random.Random(seed).sample(PIPELINE, len(PIPELINE)), graph
        for step in shuffled:
            now = verify(step.run(now), step.name)
        assert facts(now) == expected, [step.name for step in shuffled]


def test_lowering_fuses_all_of_jamba() -> None:
    """Nothing that has a kernel of its own is left alone."""
    labels = Counter(
        node.op.label.split("(")[0].split("[")[0] for g in op_graphs(lower(graph_of(JAMBA))) for node in g.nodes
    )
    left = {"silu", "softplus", "add", "mul", "causal_conv1d", "selective_scan"}
    assert not left & set(labels)
    assert {"ConvSilu", "GatedScan", "GatedProduct", "FusedLinear", "AddNorm"} <= set(labels)


def test_a_watch_sees_every_pass() -> None:
    seen: list[str] = []
    lower(graph_of(JAMBA), lambda name, graph: seen.append(name))
    assert seen == ["elaborate", *(step.name for step in PIPELINE)]


def test_contraction_refuses_a_region_that_is_not_convex() -> None:
    """in_proj and out_proj of Mamba as one op would have to run before and after the scan."""
    layer = next(iter(counts(graph_of(JAMBA).stack)))
    ends = tuple(n for n in layer.graph.nodes if n.op.label in ("linear[in_proj]", "linear[out_proj]"))
    assert len(ends) == 2
    with pytest.raises(ValueError, match="convex"):
        layer.graph.contract(ends, replace(ends[0]))


def test_programs_are_in_topological_order() -> None:
    for text in MODELS.values():
        for program in op_graphs(lower(graph_of(text))):
            assert_ordered(program)


def assert_ordered(program: OpGraph) -> None:
    known = set(program.inputs)
    for node in program.nodes:
        assert set(node.inputs) <= known
        known |= set(node.outputs)
