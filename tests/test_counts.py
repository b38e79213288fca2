"""Parameters and caches of published models, `==` to numbers that were made without archc (`facts/counts.json`)."""

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from archc import compiler
from archc.compiler import Model
from archc.diagnostics import Source
from archc.passes.outline import outline
from archc.passes.workload import Workload
from archc.report.analysis import Analysis

ROOT = Path(__file__).parents[1]
SPECS = sorted((ROOT / "specs").glob("*.arch"))
FACTS: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "facts" / "counts.json").read_text("utf-8"))
OURS = {"jamba_tiny"}  # no one else has counted it
WITHOUT_TABLES = {"moe_mamba_25m", "moe_mamba_100m"}  # their paper counts neither embedding nor head
K256 = Workload(256 * 1024)

ONE_LINER = "mlp swiglu(14336); block x4 < mamba x7, attn gqa(32,8) > moe every 2 top2/16"
SIZES = ("d_model=4096", "vocab=65536")

# `block x1000000000 < mamba >` and Jamba's thirty-two layers should take the same time; the rest is noise.
MAX_RATIO = 5


def fact_of(spec: str) -> dict[str, Any]:
    """`specs/jamba_v0_1.arch` is `Jamba-v0.1`."""
    return {re.sub(r"[-.]", "_", name).lower(): fact for name, fact in FACTS.items()}[spec]


def load(path: Path, *settings: str) -> Model:
    return compiler.load(Source(path.name, path.read_text("utf-8")), settings)


def analysed(text: str, *settings: str, workload: Workload = K256) -> Analysis:
    return compiler.analyse(compiler.load(Source("test", text), settings), workload)


@pytest.mark.parametrize("path", [path for path in SPECS if path.stem not in OURS], ids=lambda path: path.stem)
def test_counts_are_exact(path: Path) -> None:
    compare(compiler.analyse(load(path), K256), path.stem)


def compare(analysis: Analysis, name: str) -> None:
    """An analysis at 256 Ki tokens with what others counted."""
    fact = fact_of(name)
    params, state = analysis.params, analysis.state.total
    tables = params.embedding + params.head if name in WITHOUT_TABLES else 0
    counted = {
        "total_params": params.total - tables,
        "active_params": params.active - tables,
        "expert_params": params.routed,
        "embedding_params": params.embedding,
        "kv_elems_per_token": state.kv_per_token.elements,
        "kv_bytes_256k_bf16": state.kv.n_bytes,
        "kv_bytes_256k_bf16_nowindow": state.kv_unwindowed.n_bytes,
        "ssm_state_elems": state.ssm.elements,
        "conv_state_elems_kminus1": state.conv.elements,
        "conv_state_elems_k": state.conv_wide.elements,
    }
    assert fact["source"]
    expected = {key: value for key, value in fact.items() if key in counted}
    assert {"total_params", "active_params", "ssm_state_elems"} <= expected.keys()
    assert {key: counted[key] for key in expected} == expected


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_lowering_keeps_every_number(path: Path) -> None:
    model = load(path)
    lowered = compiler.Model(model.spec, (), compiler.lower(model.graph), ())
    for workload in (Workload(1), Workload(4097, batch=3, kv_dtype="fp8")):
        before, after = compiler.analyse(model, workload), compiler.analyse(lowered, workload)
        by_name = [sorted(analysis.params.tensors, key=lambda tensor: tensor.name) for analysis in (before, after)]
        assert by_name[0] == by_name[1]
        assert (before.params.total, before.params.active) == (after.params.total, after.params.active)
        assert (before.state, before.flops) == (after.state, after.flops)
        assert before.flops == before.kernel_flops


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_sums_of_the_groups_are_the_totals(path: Path) -> None:
    analysis = compiler.analyse(load(path), K256)
    assert sum(group.times for group in analysis.params.groups if group.is_layer) == analysis.outline.n_layers
    assert sum(group.total for group in analysis.params.groups) == analysis.params.total
    names = [[group.name for group in table.groups] for table in (analysis.params, analysis.state, analysis.flops)]
    assert names[0] == names[1] == names[2]
    tensors = [(group.name, tensor.name) for group in analysis.params.groups for tensor in group.tensors]
    assert len(set(tensors)) == len(tensors)


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_the_drawn_stack_is_the_stack(path: Path) -> None:
    """What the report draws is a spec: with the settings of the original it has the original's layers."""
    model = load(path)
    settings = [s.span.text for s in model.spec.statements if type(s).__name__ == "Setting" and s.ident.name != "mlp"]
    text = "\n".join([*settings, "mlp none", outline(model.graph).text])
    again = compiler.load(Source("drawn", text))
    assert outline(again.graph).text == outline(model.graph).text
    assert compiler.analyse(again, K256).params == compiler.analyse(model, K256).params
    assert compiler.analyse(again, K256).flops == compiler.analyse(model, K256).flops


def test_the_drawn_stack_tells_kinds_of_one_keyword_apart() -> None:
    text = """
        vocab 100; d_model 64; mlp swiglu(200)
        block x2 < mamba || attn mha(4), attn mqa(4) window(7), attn mqa(4) window(9) x3 >
            moe(expert=swiglu(77, bias)) top2/4 every 2
    """
    drawn = outline(compiler.load(Source("test", text)).graph).text
    assert "attn_1" in drawn
    assert "attn_2" in drawn
    again = compiler.load(Source("drawn", f"vocab 100; d_model 64; mlp none\n{drawn}"))
    assert outline(again.graph).text == drawn
    assert compiler.analyse(again, K256).params.total == analysed(text).params.total


UNROLLED = {
    "zamba_7b_v1": 11_531_654_656,
    "zamba2_1_2b": 1_760_354_944,
    "zamba2_2_7b": 3_855_023_520,
    "zamba2_7b": 11_030_553_936,
}
SHARED = {  # stored parameters of all copies, without what each use brings
    "zamba_7b_v1": 358_263_680,
    "zamba2_1_2b": 109_058_048,
    "zamba2_2_7b": 2 * 170_401_280,
    "zamba2_7b": 2 * 333_982_208,
}


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_shared_modules_are_stored_once_and_compute_often(path: Path) -> None:
    params = compiler.analyse(load(path), K256).params
    shared = [group for group in params.groups if group.name.startswith("share ")]
    assert params.unrolled == UNROLLED.get(path.stem, params.total)
    assert sum(group.total for group in shared) == SHARED.get(path.stem, 0)
    for group in shared:
        assert all(tensor.name.startswith("g.*.") and tensor.times == group.times for tensor in group.tensors)


def test_layers_that_differ_in_the_copy_they_use_are_one_row() -> None:
    analysis = analysed((ROOT / "specs" / "zamba2_2_7b.arch").read_text("utf-8"))
    assert [(group.name, group.times) for group in analysis.params.groups] == [
        ("embedding", 1),
        ("mamba2", 45),
        ("mamba2 <- g", 9),
        ("share g x2", 2),
        ("norm + head", 1),
    ]
    fed = next(group for group in analysis.params.groups if group.name == "mamba2 <- g")
    assert {"layers.*.g_out.weight", "layers.*.g_use.mlp.gate_up_adapter_A.weight"} <= {t.name for t in fed.tensors}


def test_every_use_of_a_shared_module_computes_and_keeps_state() -> None:
    """Against the same layers with weights of their own."""
    head = "vocab 100; d_model 64; mlp none"
    shared = analysed(f"{head}; share g x2 = attn gqa(4,2) window(5) + gelu(48); block x3 < mamba, g, g >")
    owned = analysed(f"{head}; block x3 < mamba, < attn gqa(4,2) window(5) + gelu(48) > x2 >")
    assert shared.flops.total == owned.flops.total
    assert shared.kernel_flops.total.backward == owned.kernel_flops.total.backward
    assert shared.state.total == owned.state.total
    assert shared.params.unrolled == owned.params.total == owned.params.unrolled
    layer = next(group for group in owned.params.groups if group.name.startswith("attn"))
    assert owned.params.total - shared.params.total == 4 * layer.total // 6


@pytest.mark.parametrize(
    "spec",
    [
        "share g = mamba; block x2 < g, mamba >",
        "share attn x2 = attn gqa(4,2); block x3 < mamba <- attn + gelu(8) >",
        "let a = attn gqa(4,2) window(7); share attn = swiglu(8); block x2 < a, attn, mamba <- attn >",
        "let f = gelu(8); share gelu(residual=none) = mamba || attn gqa(4,2); block < f, gelu, f <- gelu >",
        "share g(in=concat(h, embed), residual=none, out=linear) x3 = attn gqa(4,4) d_head=32 rope(theta=1e4, dims=8) "
        "scale=1/sqrt(80) lora(8, on=[q, v]) + geglu(300) lora(128, on=[gate_up]); block x9 < mamba x2, mamba <- g >",
        "share a = mamba; share b(out=linear) x2 = mamba(d_state=3); "
        "block x2 < attn gqa(4,2) || mamba <- b + gelu(8) <- a, b + b >",
    ],
)
def test_the_drawn_stack_says_what_is_shared(spec: str) -> None:
    head = "vocab 100; d_model 64; mlp none"
    model = compiler.load(Source("test", f"{head}; {spec}"))
    drawn = outline(model.graph).text
    again = compiler.load(Source("drawn", f"{head}\n{drawn}"))
    assert outline(again.graph).text == drawn
    for workload in (Workload(1), Workload(100)):
        assert compiler.analyse(again, workload).params == compiler.analyse(model, workload).params
        assert compiler.analyse(again, workload).flops == compiler.analyse(model, workload).flops
        assert compiler.analyse(again, workload).state == compiler.analyse(model, workload).state


def test_the_one_liner_is_jamba_with_its_attention_last() -> None:
    jamba = compiler.analyse(load(ROOT / "specs" / "jamba_v0_1.arch"), K256)
    plain = analysed(ONE_LINER, *SIZES)
    inner_norms = 28 * (256 + 16 + 16)  # of dt, B and C in 28 layers: the one-liner does not ask for them
    assert plain.params.total == jamba.params.total - inner_norms
    assert plain.params.active == jamba.params.active - inner_norms
    normed = analysed(f"let mamba = mamba(inner_norm=rms); {ONE_LINER}", *SIZES)
    assert normed.params.total == jamba.params.total == 51_570_323_328
    assert normed.params.active == jamba.params.active == 12_110_311_296
    assert normed.state.total == plain.state.total == jamba.state.total
    assert normed.flops.total == jamba.flops.total
    assert plain.outline.stack != jamba.outline.stack


def test_a_tied_head_is_stored_once() -> None:
    text = "vocab 1000; d_model 64; mlp none; block x2 < mamba >"
    untied, tied = analysed(text), analysed(f"{text}; tied")
    assert untied.params.total - tied.params.total == 64_000 == untied.params.head
    assert tied.params.head == 0
    assert tied.flops.total == untied.flops.total


def test_a_thousand_million_layers_are_counted_exactly_and_at_once() -> None:
    def text(layers: int) -> str:
        return f"vocab 65536; d_model 4096; context 256Ki; mlp none; block x{layers} < mamba >"

    few, one, many = (analysed(text(n)) for n in (2, 1, 1_000_000_000))
    for number in (
        lambda a: a.params.total,
        lambda a: a.params.active,
        lambda a: a.state.total.ssm.elements,
        lambda a: a.state.total.conv.n_bytes,
        lambda a: a.flops.total.model,
        lambda a: a.kernel_flops.total.backward,
        lambda a: a.flops.total.decode,
        lambda a: a.outline.n_layers,
    ):
        layer = number(few) - number(one)
        assert number(many) == number(one) + 999_999_999 * layer
    assert many.outline.text == "block x1000000000 < mamba >"

    jamba = (ROOT / "specs" / "jamba_v0_1.arch").read_text("utf-8")
    assert fastest(text(1_000_000_000)) < MAX_RATIO * fastest(jamba)


def fastest(text: str) -> float:
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        analysed(text)
        times.append(time.perf_counter() - begin)
    return min(times)


@pytest.mark.parametrize(("dtype", "kv", "state"), [("bf16", "bf16", "fp32"), ("fp32", "fp8", "bf16")])
def test_bytes_follow_their_dtypes(dtype: Any, kv: Any, state: Any) -> None:
    size = {"fp32": 4, "bf16": 2, "fp8": 1}
    model = load(ROOT / "specs" / "jamba_tiny.arch")
    table = compiler.analyse(model, Workload(1000, dtype=dtype, kv_dtype=kv, state_dtype=state))
    total = table.state.total
    assert total.kv.n_bytes == total.kv.elements * size[kv]
    assert total.ssm.n_bytes == total.ssm.elements * size[state]
    assert total.conv.n_bytes == total.conv.elements * size[dtype]
    kept = sum(tensor.total for tensor in table.params.tensors if tensor.keep_fp32)
    assert table.params.weight_bytes == (table.params.total - kept) * size[dtype] + kept * 4
