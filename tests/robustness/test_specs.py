"""Drawn specs: any syntax tree, words in places where they may not belong, and layers from the registries.

All are printed and read back as the same; all that mean something mean the same when printed, and are analysed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any
from zlib import crc32

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from archc import compiler
from archc.diagnostics import DiagnosticError, Source
from archc.grammar import tree
from archc.ir.graph import counts
from archc.ir.text import meaning
from archc.passes.workload import Workload
from tests import spec_fields, spec_texts, spec_trees
from tests.models.packages import write
from tests.models.test_meta import analysed_tensors
from tests.test_format import check_round_trip

Figure = Callable[[str], None]
ROOT = Path(__file__).parents[2]
WORKLOADS = Workload(1), Workload(4097, batch=3, kv_dtype="fp8")
MAX_LAYERS = 24  # of a model that is built


def drawn(strategy: Any, check: Callable[[Any], None], count: int, seed: int) -> None:
    """`check` of `count` examples; a failure is shrunk, and printed with the seed that finds it again."""
    phases = (Phase.generate, Phase.shrink)
    limits = settings(
        max_examples=count, deadline=None, database=None, phases=phases, suppress_health_check=list(HealthCheck)
    )
    hypothesis.seed(seed)(limits(given(strategy)(check)))()


def model_of(text: str) -> compiler.Model | None:
    try:
        return compiler.load(Source("drawn", text))
    except DiagnosticError:
        return None


class Tally:
    """How many texts there were, and how many of them were models."""

    def __init__(self) -> None:
        self.texts = self.models = 0

    def check(self, text: str) -> None:
        self.texts += 1
        model = model_of(text)
        if model is None:
            return
        self.models += 1
        formatted = compiler.formatted(model.spec.source)
        assert compiler.formatted(Source("again", formatted)) == formatted
        again = compiler.load(Source("formatted", formatted))
        assert meaning(again.graph) == meaning(model.graph)
        for workload in WORKLOADS:
            analysis = compiler.analyse(model, workload)
            assert analysis.params.total >= analysis.params.active > 0
            assert analysis.flops == analysis.kernel_flops


def trees(count: int, seed: int) -> None:
    def check(spec: tree.Spec) -> None:
        check_round_trip(spec)

    drawn(spec_trees.specs, check, count, seed)


def texts(count: int, seed: int, figure: Figure, strategy: Any, name: str) -> None:
    tally = Tally()
    drawn(strategy, tally.check, count, seed)
    figure(f"{tally.texts:,} specs of {name}, seed {seed}: {tally.models:,} models, the others diagnosed")
    assert tally.models > tally.texts // 100 or tally.texts < 1_000


def test_some_specs(seed: int, figure: Figure) -> None:
    trees(25, seed)
    texts(25, seed, figure, spec_texts.texts(), "words")
    texts(25, seed, figure, spec_fields.models(), "fields")


@pytest.mark.heavy
@pytest.mark.parametrize("shard", range(2))
def test_8_000_syntax_trees(shard: int, seed: int) -> None:
    trees(4_000, seed + shard)


@pytest.mark.heavy
@pytest.mark.parametrize("shard", range(2))
def test_5_000_texts_of_words(shard: int, seed: int, figure: Figure) -> None:
    texts(2_500, seed + shard, figure, spec_texts.texts(), "words")


@pytest.mark.heavy
@pytest.mark.parametrize("shard", range(3))
def test_7_000_specs_of_drawn_fields(shard: int, seed: int, figure: Figure) -> None:
    texts(2_334, seed + shard, figure, spec_fields.models(), "fields")


# --- built -----------------------------------------------------------------------------------------


def small_models(count: int, seed: int) -> dict[str, tuple[str, compiler.Model]]:
    """`count` models of a few layers, by the name of their package."""
    found: dict[str, tuple[str, compiler.Model]] = {}

    def keep(text: str) -> None:
        model = model_of(text) if len(found) < count else None
        if model is not None and sum(counts(model.graph.stack).values()) <= MAX_LAYERS:
            found[f"drawn_{len(found)}"] = text, model

    drawn(spec_fields.models(few=True), keep, 12 * count, seed)
    return found


@pytest.mark.parametrize("count", [3, *(pytest.param(100, id=f"100_{i}", marks=pytest.mark.heavy) for i in range(3))])
def test_models_are_what_was_analysed(
    count: int, seed: int, tmp_path: Path, figure: Figure, request: pytest.FixtureRequest
) -> None:
    """Built, imported and made on the meta device, they have exactly the analysed tensors and bytes of cache."""
    context = 32
    found = small_models(count, seed + crc32(request.node.name.encode()))
    assert len(found) == count
    for name, (_, model) in found.items():
        write(tmp_path / name, compiler.build(model))
    program = ROOT / "tests" / "models" / "on_meta.py"
    command = [sys.executable, str(program), str(tmp_path), *(f"{name}:{context}" for name in found)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    run = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert run.returncode == 0, run.stderr[-3000:]
    described = json.loads(run.stdout)
    for name, (text, model) in found.items():
        analysis = compiler.analyse(model, Workload(context))
        said = described[name]
        assert said["tensors"] == analysed_tensors(model), text
        assert sum(map(prod, said["tensors"].values())) == analysis.params.total, text
        kept = analysis.state.total
        n_bytes = sum(part.n_bytes for part in (kept.kv, kept.ssm, kept.conv))
        assert said["cache_bytes"] == {"1": n_bytes, "3": 3 * n_bytes}, text
    figure(f"{count} drawn models built, seed {seed}: every tensor and every byte of cache as analysed")
