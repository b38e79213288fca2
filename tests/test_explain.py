"""`archc explain FIGURE`: the terms add up to what the report says, and are traced to lines of the spec."""

import re
from pathlib import Path

import pytest

from archc import compiler
from archc.compiler import Model
from archc.diagnostics import Source, codes
from archc.explaining import TOPICS, explanation
from archc.passes.accelerators import ACCELERATORS
from archc.passes.saved import saved
from archc.passes.workload import Workload
from archc.report import figures as figures_of
from archc.report.explanation import explanation_text
from archc.report.figures import figures
from archc.report.sizing import PHASES, Request
from archc.report.sizing_text import memory_rows, sizing_sections
from archc.report.steps import MOMENTS, PARTS
from archc.sizing import size

ROOT = Path(__file__).parents[1]
SPECS = sorted((ROOT / "specs").glob("*.arch"))
REQUEST = Request(PHASES, device=ACCELERATORS["h100"])


def load(path: Path) -> Model:
    return compiler.load(Source(path.name, path.read_text("utf-8")))


def jamba() -> Model:
    return load(ROOT / "specs" / "jamba_v0_1.arch")


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_terms_add_up_to_the_figures(path: Path) -> None:
    model, workload = load(path), Workload(4096)
    analysis = compiler.analyse(model, workload)
    state, batch = analysis.state.total, workload.batch
    kernels = analysis.kernel_flops.total
    expected = {
        "params": analysis.params.total,
        "active": analysis.params.active,
        "weights": analysis.params.weight_bytes,
        "kv": state.kv.n_bytes,
        "state": state.recurrent.n_bytes,
        "flops": analysis.model_flops,
        "kernels": (kernels.forward + kernels.backward) // batch,
        "decode": analysis.flops.total.decode // batch,
        "saved": saved(model.lowered, workload).n_bytes,
    }
    for topic, total in expected.items():
        found = explanation(model, workload, REQUEST, topic)
        assert found.total == total, topic
        for term in found.terms:
            bound = {binding.name: binding.value for binding in term.bindings}
            if term.bindings and all(name.isidentifier() for name in bound):
                names = set(re.findall(r"[A-Za-z_]\w*", term.formula)) - {"min", "max", "bit_length"}
                assert names <= bound.keys(), f"{topic}: {term.formula} is not bound"


def test_a_formula_and_its_lines() -> None:
    text = explanation_text(explanation(jamba(), Workload(4096), REQUEST, "kv"))
    assert "attn + swiglu(14336)  4 x 16,777,216 = 67,108,864" in text
    assert "mixer.kv.k  context * n_kv_heads * d_head x 2 B  = 8,388,608" in text
    assert "total 67,108,864 B (64 MiB)" in text
    assert "line 11: let attn = attn(d_head=128, rope=none)" in text
    params = explanation_text(explanation(jamba(), Workload(4096), REQUEST, "params"))
    assert re.search(r"d_model +4,096 +line 5: d_model 4096", params)
    assert re.search(r"d_inner +2 \* d_model = 8,192", params)
    assert "(d_inner + d_inner) * d_model" in params


def test_a_window_and_experts_show_in_the_formula() -> None:
    text = "vocab 8; d_model 64; mlp none; block < attn mqa(4) window(16) + moe(expert=swiglu(32)) top1/4 >"
    model = compiler.load(Source("test", text))
    assert "min(context, 16)" in explanation_text(explanation(model, Workload(64), REQUEST, "kv"))
    assert "x 1/4" in explanation_text(explanation(model, Workload(64), REQUEST, "active"))


@pytest.mark.parametrize("topic", TOPICS)
def test_every_topic_has_text(topic: str) -> None:
    for request in (REQUEST, Request(("train",))):
        text = explanation_text(explanation(jamba(), Workload(1024), request, topic))
        assert text.startswith(f"{topic}: ")
        assert len(text.splitlines()) > 2


def test_every_figure_of_the_report_has_a_unit_and_a_topic() -> None:
    model, workload = jamba(), Workload(4096)
    analysis, sizing = compiler.analyse(model, workload), size(model, workload, REQUEST)
    for figure in figures(analysis, sizing):
        assert figure.topic in TOPICS
        assert figure.unit in ("", "B", "FLOP", "parameters", "ns")
    sections = [topics for _, _, topics in sizing_sections(sizing, workload)]
    for topics in [*sections, *figures_of.TOPICS.values()]:
        assert topics
        assert set(topics) <= TOPICS.keys()
    assert {topic for topics in figures_of.TOPICS.values() for topic in topics} == TOPICS.keys()


@pytest.mark.parametrize("path", SPECS[::4], ids=lambda path: path.stem)
def test_every_part_and_moment_is_explained(path: Path) -> None:
    model, workload = load(path), Workload(1024)
    sizing = size(model, workload, REQUEST)
    for sized in sizing.phases:
        assert {part.name for part in sized.memory.parts} <= PARTS.keys()
        assert {m.name for m in sized.memory.moments if not m.name.startswith("backward of ")} <= MOMENTS.keys()
    assert all(len(cells) == len(PHASES) for _, cells in memory_rows(sizing, workload))


def test_no_figure_has_the_name_of_a_code() -> None:
    assert not TOPICS.keys() & set(codes())
