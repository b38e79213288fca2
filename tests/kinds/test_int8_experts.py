"""Experts of int8: made from trained ones, one byte a weight in memory, and the same function but for rounding."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from archc import compiler
from archc.codegen.kernels import render
from archc.codegen.kernels.int8_expert_linear import Int8ExpertLinear
from archc.diagnostics import Source
from archc.passes.workload import Workload
from tests.models.packages import Package, Workshop, write

torch = pytest.importorskip("torch")

ROOT = Path(__file__).parents[2]
TEXT = "model experts\nvocab 17\nd_model 12\nmlp {mlp}\nblock x2 < attn gqa(4,2) > moe({moe}expert={mlp}) top2/4\n"


def text(mlp: str, *, narrow: bool) -> str:
    return TEXT.format(mlp=mlp, moe="weights=int8, " * narrow)


@pytest.fixture(params=["swiglu(9)", "gelu(7, bias)"])
def converted(request: pytest.FixtureRequest, workshop: Workshop, tmp_path: Path) -> tuple[Package, Any, Package, Any]:
    """A package and its model, and the one of int8 with the same weights, by way of a checkpoint."""
    wide, narrow = (workshop(text(request.param, narrow=flag)) for flag in (False, True))
    model = wide.make(torch.float32)
    wide.module("checkpoint").save(tmp_path / "wide", 3, model)
    path = narrow.module("quantise").quantise(tmp_path / "wide", tmp_path / "narrow")
    ours = narrow.module("checkpoint").empty(torch.device("cpu"), torch.float32)
    narrow.module("checkpoint").load(path, ours)
    return wide, model, narrow, ours.eval()


def test_the_function_is_that_of_the_rounded_weights(converted: tuple[Package, Any, Package, Any]) -> None:
    """Each row is rounded to 127 steps on either side; with these very numbers the models are equal."""
    _, model, narrow, ours = converted
    quantised = narrow.module("quantise").quantised
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".experts." in name and not name.endswith("_bias"):
                whole, scale = quantised(parameter)
                assert torch.equal(whole, ours.get_parameter(name))
                assert torch.equal(scale, ours.get_parameter(f"{name}_scale"))
                rounded = whole.float() * scale[..., None]
                assert bool(((rounded - parameter).abs() <= scale[..., None] * 0.5001).all())  # float32 division
                parameter.copy_(rounded)
        tokens = torch.randint(17, (2, 9), generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(ours(tokens), model(tokens), rtol=1e-5, atol=1e-6)  # float32, other order
        cache = ours.init_cache(2, 9)
        parts = [ours(tokens[:, i : i + 1], cache=cache) for i in range(9)]
        torch.testing.assert_close(torch.cat(parts, 1), ours(tokens), rtol=1e-5, atol=1e-6)


def test_the_analysis_has_the_bytes(converted: tuple[Package, Any, Package, Any]) -> None:
    *_, narrow, ours = converted
    ours = narrow.module("checkpoint").empty(torch.device("meta"), torch.bfloat16)
    analysis = compiler.analyse(narrow.model, Workload(16))
    assert analysis.params.total == sum(p.numel() for p in ours.parameters())
    assert analysis.params.weight_bytes == sum(p.numel() * p.element_size() for p in ours.parameters())
    assert sum(p.numel() for p in ours.parameters() if p.dtype == torch.int8) == sum(
        tensor.total for tensor in analysis.params.tensors if tensor.int8
    )


def test_they_are_not_trained(converted: tuple[Package, Any, Package, Any], tmp_path: Path, capsys: Any) -> None:
    *_, narrow, _ = converted
    (tmp_path / "a.txt").write_text("a" * 1000)
    arguments = ["--data", str(tmp_path / "a.txt"), "--out", str(tmp_path / "run"), "--steps", "1"]
    assert narrow.module("train").main(arguments) == 1
    assert "int8 weights are for inference" in capsys.readouterr().err


def test_a_checkpoint_of_another_kind_is_refused(
    converted: tuple[Package, Any, Package, Any], tmp_path: Path, capsys: Any
) -> None:
    _, _, narrow, ours = converted
    narrow.module("checkpoint").save(tmp_path / "again", 0, ours)
    assert narrow.module("quantise").main([str(tmp_path / "again"), str(tmp_path / "out")]) == 1
    assert "is not of this spec without weights=int8" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_jamba_1_5_large_fits_eight_gpus() -> None:
    """ExpertsInt8's claim, 8 x 80 GB (arXiv:2408.12570): 85 % of 398.56B weights take one byte, the others two."""
    spec = (ROOT / "specs" / "jamba_1_5_large.arch").read_text(encoding="utf-8")
    wide = compiler.analyse(compiler.load(Source("spec", spec)), Workload(256 * 1024)).params
    narrow_text = spec.replace("> moe ", "> moe(weights=int8) ")
    assert narrow_text != spec
    narrow = compiler.analyse(compiler.load(Source("spec", narrow_text)), Workload(256 * 1024)).params
    scales = narrow.total - wide.total
    assert scales == 36 * 16 * (2 * 24576 + 8192)
    assert narrow.weight_bytes == wide.weight_bytes - wide.routed + 4 * scales
    assert narrow.weight_bytes < 8 * 80 * 10**9 < wide.weight_bytes


# --- the kernel ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("int8")
    runtime = ROOT / "archc" / "codegen" / "runtime"
    files = {name: (runtime / name).read_text() for name in ("dispatch.py",)}
    write(folder / "int8_kernels_pkg", render(Int8ExpertLinear()) | files | {"__init__.py": ""})
    return folder


def test_the_kernel_in_the_interpreter(folder: Path) -> None:
    pytest.importorskip("triton")
    command = [sys.executable, "-m", "tests.kinds.int8_interpreted", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("target", [80, 90])
def test_the_kernel_compiles(folder: Path, target: int, monkeypatch: pytest.MonkeyPatch) -> None:
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from tests.kernels.test_compile import resources

    monkeypatch.syspath_prepend(str(folder))
    kernel = importlib.import_module("int8_kernels_pkg.int8_expert_linear_kernels")._forward_kernel
    types = ["*bf16", "*i8", "*fp32", "*bf16", "*i32", "*i32", "*i32", "i32", "i32", "i32", "i64", "i64", "constexpr"]
    for rows in (16, 64):
        signature = dict(zip(kernel.arg_names, types, strict=True))
        aligned = {(i,): [["tt.divisibility", 16]] for i in (*range(7), 8, 9, 10, 11)}
        source = ASTSource(kernel, signature, {"ROWS": rows}, aligned)
        options = {"num_warps": 4, "num_stages": 3}
        binary = triton.compile(source, target=GPUTarget("cuda", target, 32), options=options)
        _, stack = resources(binary.asm["cubin"])
        assert stack == 0
        assert binary.metadata.shared <= 99 * 1024  # what a block of the smallest of these GPUs may have
