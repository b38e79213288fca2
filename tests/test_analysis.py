"""The report of `archc analyze`: the same numbers as text and as JSON, under a schema that only changes on purpose."""

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from archc import compiler, units
from archc.diagnostics import Source
from archc.passes.params import params
from archc.passes.workload import Workload
from archc.report.analysis import Analysis, per_token
from archc.report.document import json_schema, to_json
from archc.report.names import FOREIGN
from archc.report.schema import AnalysisDocument
from archc.report.text import report

ROOT = Path(__file__).parents[1]
SPECS = sorted((ROOT / "specs").glob("*.arch"))
SUMS = {"d_xBC", "d_qkv"}  # sizes that no configuration holds, for others give them
SCHEMA = Path(__file__).parent / "goldens" / "analysis.schema.json"


def analysed(path: Path, workload: Workload) -> Analysis:
    return compiler.analyse(compiler.load(Source(path.name, path.read_text("utf-8"))), workload)


def as_text(analysis: Analysis, width: int = 120) -> str:
    console = Console(width=width, highlight=False)
    with console.capture() as captured:
        console.print(report(analysis))
    return captured.get()


def as_json(analysis: Analysis) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(to_json(analysis, None, "0"))
    return parsed


def test_the_schema_is_the_published_one() -> None:
    """A change here is a change for everyone who reads the JSON: raise `version`, then update the golden."""
    assert json_schema() == SCHEMA.read_text("utf-8")


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_json_carries_the_numbers_of_the_tables(path: Path) -> None:
    analysis = analysed(path, Workload(256 * 1024, batch=2))
    document = as_json(analysis)
    AnalysisDocument.model_validate(document)
    state = analysis.state.total
    assert document["parameters"]["total"] == analysis.params.total
    assert document["parameters"]["active"] == analysis.params.active
    assert document["state"]["kv_bytes"] == state.kv.n_bytes
    assert document["state"]["ssm_state_elements"] == state.ssm.elements
    assert document["state"]["conv_state_elements"] == state.conv.elements
    assert document["state"]["conv_state_elements_d_conv"] == state.conv_wide.elements
    assert document["state"]["total_bytes"] == state.kv.n_bytes + state.ssm.n_bytes + state.conv.n_bytes
    assert document["flops"]["model_forward"] * 2 == analysis.flops.total.model
    assert document["flops"]["kernel_backward"] * 2 == analysis.kernel_flops.total.backward
    assert sum(group["parameters"] for group in document["groups"]) == analysis.params.total
    assert sum(group["decode_step_flops"] for group in document["groups"]) == document["flops"]["decode_step"]
    counted = 0
    for tensor in document["parameters"]["tensors"]:
        size = tensor["count"]
        for length in tensor["shape"]:
            size *= length
        counted += size
    assert counted == analysis.params.total


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
@pytest.mark.parametrize("width", [60, 120])
def test_text_carries_the_exact_numbers(path: Path, width: int) -> None:
    analysis = analysed(path, Workload(256 * 1024))
    text = as_text(analysis, width)
    state = analysis.state.total
    for number in (
        analysis.params.total,
        analysis.params.active,
        state.kv.n_bytes,
        state.ssm.elements,
        state.conv.elements,
        state.conv_wide.elements,
        analysis.flops.total.model,
        analysis.kernel_flops.total.backward,
    ):
        assert not number or units.exact(number) in text
    for line in analysis.outline.text.splitlines():
        assert line.split()[0] in text


def test_the_report_says_which_conv_layout_it_counts() -> None:
    text = as_text(analysed(ROOT / "specs" / "mamba_130m.arch", Workload(1024)))
    assert "110,592 elements, bf16, d_conv - 1 columns" in text
    assert "147,456 elements, as mamba_ssm and transformers hold it" in text


def test_windows_and_what_there_would_be_without() -> None:
    text = as_text(analysed(ROOT / "specs" / "mistral_7b_v0_1.arch", Workload(256 * 1024)))
    assert "536,870,912 B" in text
    assert "34,359,738,368 B" in text


def test_what_is_shared_is_shown() -> None:
    analysis = analysed(ROOT / "specs" / "zamba2_2_7b.arch", Workload(4096))
    text = as_text(analysis)
    assert "3,855,023,520" in text
    assert "share g(in=concat(h, embed), residual=none, out=linear) x2 =" in text
    assert "< mamba2 x5, mamba2 <- g > x6" in text
    assert as_json(analysis)["parameters"]["unrolled"] == 3_855_023_520
    (shared,) = (group for group in as_json(analysis)["groups"] if group["name"] == "share g x2")
    assert shared["count"] == 2
    assert shared["parameters"] == 2 * 170_401_280
    assert shared["model_forward_flops"] == shared["kv_bytes"] == 0
    plain = as_text(analysed(ROOT / "specs" / "jamba_tiny.arch", Workload(4096)))
    assert "unrolled" not in plain.lower()


def test_defaults_in_force_are_shown() -> None:
    model = compiler.load(Source("test", "vocab 8; d_model 8; mlp none; block < mamba >"))
    analysis = compiler.analyse(model, Workload(4096, assumed=True))
    assert analysis.defaults == ("norm rms(eps=1e-05)", "untied head", "context 4,096 tokens")
    assert all(line in as_text(analysis) for line in analysis.defaults)
    assert as_json(analysis)["model"]["defaults"] == list(analysis.defaults)


def test_every_size_of_a_published_model_has_a_name_elsewhere() -> None:
    for path in SPECS:
        sizes = {name for name, _ in analysed(path, Workload(1)).outline.sizes}
        assert sizes - SUMS <= FOREIGN.keys(), path.name


def test_tensors_have_their_canonical_names() -> None:
    model = compiler.load(Source("test", (ROOT / "specs" / "jamba_v0_1.arch").read_text("utf-8")))
    shapes = {tensor.name: tensor.shape for tensor in params(model.graph, Workload(1)).tensors}
    assert shapes["embed.weight"] == (65536, 4096)
    assert shapes["layers.*.mixer.in_proj.weight"] == (16384, 4096)
    assert shapes["layers.*.mixer.conv1d.weight"] == (8192, 1, 4)
    assert shapes["layers.*.mixer.A_log"] == (8192, 16)
    assert shapes["layers.*.mlp.experts.up_proj"] == (16, 14336, 4096)
    assert shapes["layers.*.mlp_norm.weight"] == (4096,)
    assert shapes["norm.weight"] == (4096,)
    assert shapes["lm_head.weight"] == (65536, 4096)


def test_the_mean_per_token_is_rounded_to_the_nearest() -> None:
    workload = Workload(3)
    assert [per_token(flops, workload) for flops in (0, 1, 2, 3, 4, 5)] == [0, 0, 1, 1, 1, 2]


@pytest.mark.parametrize("wrong", [{"context": 0}, {"context": 1, "batch": 0}, {"context": 1, "dtype": "int3"}])
def test_a_workload_is_refused_that_means_nothing(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"workload|dtype"):
        Workload(**wrong)
