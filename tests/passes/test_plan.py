"""Plans of several devices, and what each then holds."""

from pathlib import Path
from typing import Any

import pytest

from archc import compiler
from archc.compiler import Model
from archc.diagnostics import Source
from archc.passes.grouping import groups
from archc.passes.holdings import cache_bytes, held_groups, total, units
from archc.passes.params import params
from archc.passes.plan import OptimizerName, Plan, Training
from archc.passes.stages import cut_evenly
from archc.passes.state import state
from archc.passes.workload import Workload

ROOT = Path(__file__).parents[2]
SPECS = sorted((ROOT / "specs").glob("*.arch"))
WORKLOAD = Workload(4096)


def load(name: str) -> Model:
    return compiler.load(Source(name, (ROOT / "specs" / f"{name}.arch").read_text("utf-8")))


def held(model: Model, plan: Plan, training: Training | None = None, workload: Workload = WORKLOAD) -> list[Any]:
    """What a device of each stage holds."""
    unit = units(params(model.graph, workload), workload, plan, training)
    cut = cut_evenly(model.graph.stack, plan.pp)
    return [
        total(unit, held_groups(model.graph, stage, first=i == 0, last=i == len(cut) - 1))
        for i, stage in enumerate(cut)
    ]


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_one_device_holds_everything(path: Path) -> None:
    model = load(path.stem)
    counted = params(model.graph, WORKLOAD)
    (one,) = held(model, Plan(), Training())
    kept_wide = sum(tensor.total for tensor in counted.tensors if tensor.keep_fp32)
    assert one.weights == one.gradients == counted.weight_bytes
    assert one.masters == 4 * (counted.total - kept_wide)
    assert one.optimizer == 8 * counted.total
    assert one.added_up == 4 * counted.total
    assert one.gathered == 0
    caches = cache_bytes(model.graph, {group.name: group.times for group in groups(model.graph)}, WORKLOAD, Plan())
    kept = state(model.graph, WORKLOAD).total
    assert caches == {"kv": kept.kv.n_bytes, "ssm": kept.ssm.n_bytes, "conv": kept.conv.n_bytes}


@pytest.mark.parametrize("name", ["jamba_v0_1", "llama_3_8b", "mamba2_130m", "zamba2_2_7b"])
@pytest.mark.parametrize("pp", [2, 3, 5])
def test_stages_hold_the_model_between_them(name: str, pp: int) -> None:
    """But for what each stage needs by itself: shared modules, and the matrix of a tied head."""
    model = load(name)
    counted = params(model.graph, WORKLOAD)
    shared = sum(2 * g.total for g in counted.groups if not g.is_layer and g.name.startswith("share"))
    tied = 2 * counted.embedding if model.graph.settings.tied else 0
    weights = sum(stage.weights for stage in held(model, Plan(pp=pp)))
    assert weights == counted.weight_bytes + tied + (pp - 1) * shared


def test_experts_have_their_own_divisor() -> None:
    model = load("mixtral_8x7b")
    counted = params(model.graph, WORKLOAD)
    routers = 32 * 8 * 4096
    dense = counted.total - counted.routed
    norms = 65 * 4096
    (sharded,) = held(model, Plan(fsdp=64, ep=8))
    assert sharded.weights == 2 * counted.total // 64
    (copied,) = held(model, Plan(dp=64, ep=8))
    assert copied.weights == 2 * (counted.routed // 8 + dense)
    (cut,) = held(model, Plan(tp=8))
    assert cut.weights == 2 * (counted.routed // 8 + (dense - routers - norms) // 8 + routers + norms)
    (both,) = held(model, Plan(tp=4, ep=8, dp=2))
    assert both.weights == 2 * (counted.routed // 8 + (dense - routers - norms) // 4 + routers + norms)
    assert Plan(tp=4, fsdp=8, ep=8).expert_divisor == 32
    assert Plan(tp=4, cp=2, fsdp=8, ep=64).expert_divisor == 64


def test_a_plan_counts_its_devices() -> None:
    plan = Plan(tp=8, pp=4, cp=2, dp=2, fsdp=2, ep=16)
    assert (plan.n_devices, plan.stage_devices, plan.shards) == (256, 64, 4)
    assert plan.text == "tp 8, pp 4, cp 2, ep 16, dp 2, fsdp 2"
    with pytest.raises(ValueError, match="does not divide"):
        Plan(tp=4, ep=3)
    with pytest.raises(ValueError, match="at least 1"):
        Plan(tp=0)


@pytest.mark.parametrize(
    ("optimizer", "matrix", "vector"),
    [("adamw", 8 * 8192, 800), ("adamw8bit", 2 * 8192 + 2 * 4 * 32, 800), ("muon", 4 * 8192, 800), ("sgd", 32768, 400)],
)
def test_state_of_optimizers(optimizer: OptimizerName, matrix: int, vector: int) -> None:
    training = Training(optimizer)
    assert training.optimizer_bytes(8192, matrix=True) == matrix
    assert training.optimizer_bytes(100, matrix=False) == vector


def test_keys_and_values_keep_a_head_on_every_device() -> None:
    model = load("llama_3_8b")
    every = {group.name: group.times for group in groups(model.graph)}
    whole = cache_bytes(model.graph, every, WORKLOAD, Plan())["kv"]
    assert cache_bytes(model.graph, every, WORKLOAD, Plan(tp=4))["kv"] == whole // 4
    assert cache_bytes(model.graph, every, WORKLOAD, Plan(tp=16))["kv"] == whole // 8
    assert cache_bytes(model.graph, every, WORKLOAD, Plan(cp=2))["kv"] == whole // 2
