"""Every spec at full size: the generated model on the meta device has exactly the analysed tensors and cache."""

import json
import os
import subprocess
import sys
from math import prod
from pathlib import Path
from typing import Any

import pytest

from archc import compiler
from archc.diagnostics import Source
from archc.ir.graph import Layer, Node, unrolled
from archc.ir.values import Weight
from archc.passes.params import params
from archc.passes.state import state
from archc.passes.workload import Workload

from .cases import KINDS, SPECS
from .on_meta import describe
from .packages import Workshop, write

pytest.importorskip("torch")

FULL_SIZE = {path.stem: path.read_text(encoding="utf-8") for path in SPECS}
TEXTS = FULL_SIZE | KINDS
DEFAULT_CONTEXT = 4096
SECONDS = 20  # of one model on the meta device; the largest took under 1 on two slow cores


@pytest.fixture(scope="module")
def models() -> dict[str, compiler.Model]:
    return {name: compiler.load(Source(name, text)) for name, text in TEXTS.items()}


@pytest.fixture(scope="module")
def full_size(models: dict[str, compiler.Model], tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What one child process says of the packages of all specs."""
    folder = tmp_path_factory.mktemp("full_size")
    for name in FULL_SIZE:
        write(folder / name, compiler.build(models[name]))
    program = Path(__file__).with_name("on_meta.py")
    packages = [f"{name}:{context_of(models[name])}" for name in FULL_SIZE]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("PYTHONPATH", None)  # a package needs torch and nothing of ours
    run = subprocess.run(
        [sys.executable, str(program), str(folder), *packages],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout)


@pytest.fixture
def found(name: str, models: dict[str, compiler.Model], request: pytest.FixtureRequest, workshop: Workshop) -> Any:
    """What is found out about one model: for specs by the child process, for the small ones here."""
    if name in FULL_SIZE:
        return request.getfixturevalue("full_size")[name]
    return json.loads(json.dumps(describe(workshop(KINDS[name]).name, context_of(models[name]))))


def context_of(model: compiler.Model) -> int:
    return model.graph.settings.context or DEFAULT_CONTEXT


def analysed_tensors(model: compiler.Model) -> dict[str, list[int]]:
    """Name and shape of every tensor: those of the ends, and each layer's under its index."""
    graph = model.graph
    tensors = {}
    for ends in (graph.prologue, graph.epilogue):
        tensors |= {weight.path: sizes(weight) for node in ends.nodes for weight in node.op.weights()}
    for i, layer in enumerate(unrolled(graph.stack)):
        for node in layer.graph.nodes:
            tensors |= {module_of(node, layer, i) + weight.path: sizes(weight) for weight in node.op.weights()}
    return tensors


def sizes(weight: Weight) -> list[int]:
    return [axis.size.value for axis in weight.axes]


def module_of(node: Node, layer: Layer, index: int) -> str:
    """Where the weights of a node are: in the layer, in a copy of a shared module, or in what a use of it brings."""
    if not node.scope:
        return f"layers.{index}."
    root, _, rest = node.scope.partition(".")
    shared = next(scope.shared for scope in layer.scopes if scope.name == root)
    if shared is None:
        return f"layers.{index}.{node.scope}."
    home = f"layers.{index}.{root}_use." if node.per_use else f"{shared.name}.{shared.copy}."
    return home + (f"{rest}." if rest else "")


@pytest.mark.parametrize("name", TEXTS)
def test_the_model_has_the_analysed_tensors(name: str, models: dict[str, Any], found: dict[str, Any]) -> None:
    model = models[name]
    assert found["tensors"] == analysed_tensors(model)
    assert found["buffers"] == []
    assert params(model.graph, Workload(context=1)).total == sum(map(prod, found["tensors"].values()))


@pytest.mark.parametrize("name", TEXTS)
def test_what_is_stored_are_the_parameters(name: str, found: dict[str, Any]) -> None:
    """A tied head stores nothing of its own, so a checkpoint holds every number once."""
    assert found["stored"] == sorted(found["tensors"])


@pytest.mark.parametrize("name", TEXTS)
def test_the_cache_has_the_analysed_bytes(name: str, models: dict[str, Any], found: dict[str, Any]) -> None:
    model = models[name]
    kept = state(model.graph, Workload(context=context_of(model))).total
    parts = (kept.kv, kept.ssm, kept.conv)
    assert found["cache_elements"] == sum(part.elements for part in parts)
    assert found["cache_bytes"] == {"1": sum(p.n_bytes for p in parts), "3": 3 * sum(p.n_bytes for p in parts)}


@pytest.mark.parametrize("name", TEXTS)
def test_it_names_what_decays_and_what_stays_wide(name: str, models: dict[str, Any], found: dict[str, Any]) -> None:
    rows = params(models[name].graph, Workload(context=1)).tensors
    for tensor in found["tensors"]:
        row = next(r for r in rows if r.name == starred(tensor))
        assert (tensor in found["no_decay"]) == (not row.decay), tensor
        assert (tensor in found["keep_fp32"]) == row.keep_fp32, tensor


@pytest.mark.parametrize("name", FULL_SIZE)
def test_meta_construction_is_quick(name: str, found: dict[str, Any]) -> None:
    assert found["seconds"] < SECONDS


def starred(name: str) -> str:
    """`layers.3.mixer.D` as the tables write it: `layers.*.mixer.D`; the same for a copy of a shared module."""
    head, _, rest = name.partition(".")
    index, _, path = rest.partition(".")
    return f"{head}.*.{path}" if index.isdigit() else name
