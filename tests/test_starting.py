"""`archc init`, `graph` and `doctor`, and completion: what a newcomer meets first."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from archc import compiler
from archc.cli.doctor import devices, kernels, probed
from archc.cli.starting import STARTERS
from archc.diagnostics import Source
from archc.passes.outline import outline
from archc.report.drawing import dot, drawing, mermaid
from tests.test_arrows import HEAVY, imported_by

ROOT = Path(__file__).parents[1]
FAMILIES = sorted(STARTERS.glob("*.arch"))
SPECS = sorted((ROOT / "specs").glob("*.arch"))


def archc(*arguments: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "archc", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=180, check=False)


# --- init --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", FAMILIES, ids=lambda path: path.stem)
def test_a_starter_builds_and_explains_itself(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    source = Source(path.name, text)
    assert compiler.formatted(source) == text
    model = compiler.load(source)
    assert model.warnings == ()
    assert "model.py" in compiler.build(model)
    assert re.match(r"# .*\(.*arXiv:\d{4}\.\d{5}\)\.\n", text)
    assert len(re.findall(r"#", text)) >= 3
    assert 10**7 < compiler.analyse(model, workload()).params.total < 3 * 10**8, "small enough to be trained for a look"


def workload() -> Any:
    from archc.passes.workload import Workload

    return Workload(1024)


def test_init(tmp_path: Path) -> None:
    assert [line.split()[0] for line in archc("init").stdout.splitlines()] == [path.stem for path in FAMILIES]
    assert archc("init", "jamba", cwd=tmp_path).returncode == 0
    assert (tmp_path / "jamba.arch").read_text() == (STARTERS / "jamba.arch").read_text()
    (tmp_path / "jamba.arch").write_text("mine")
    again = archc("init", "jamba", cwd=tmp_path)
    assert (again.returncode, again.stderr.split("]")[0]) == (4, "error[would-overwrite")
    assert (tmp_path / "jamba.arch").read_text() == "mine"
    assert archc("init", "jamba", "-o", "-").stdout == (STARTERS / "jamba.arch").read_text()
    wrong = archc("init", "jmba")
    assert wrong.returncode == 2
    assert "did you mean jamba" in wrong.stderr.replace("\n", " ")


# --- graph -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_drawings_show_every_layer_of_the_rolled_stack_once(path: Path) -> None:
    model = compiler.load(Source(path.name, path.read_text(encoding="utf-8")))
    shown = outline(model.graph)
    picture = drawing(shown)
    names = [node.name for node in [*picture.line, *picture.shared.values()]]
    assert len(set(names)) == len(names)
    assert len(picture.shared) == len(shown.shares)
    assert {shared.name for shared, _ in picture.links} == {node.name for node in picture.shared.values()}
    text = dot(shown)
    assert re.findall(r"^ +(\w+) \[label=", text, re.MULTILINE) == [
        *(name for name in declared(mermaid(shown))),
    ]
    assert set(declared(mermaid(shown))) == set(names)
    assert text.count("{") == text.count("}")
    assert mermaid(shown).count("subgraph ") == mermaid(shown).count("  end\n") == text.count("subgraph cluster_")
    assert " -> ".join(node.name for node in picture.line) in text


def declared(text: str) -> list[str]:
    return re.findall(r'^ +(\w+)\["', text, re.MULTILINE)


def test_text_in_drawings_stays_text() -> None:
    text = "vocab 8\nd_model 8\nmlp none\nshare g(out=linear) = attn mha(2)\nblock x3 < mamba, mamba <- g >\n"
    shown = outline(compiler.load(Source("s", text)).graph)
    assert 'l1["mamba &lt;- g"]' in mermaid(shown)
    assert "s0 -.-> l1" in mermaid(shown)
    assert 'l1 [label="mamba <- g"]' in dot(shown)
    assert '["x3"]' in mermaid(shown)


def test_graph() -> None:
    assert archc("graph", "specs/jamba_tiny.arch").stdout.startswith("flowchart TB\n")
    assert archc("graph", "specs/jamba_tiny.arch", "--as", "dot").stdout.startswith('digraph "jamba_tiny" {\n')


# --- doctor ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [("doctor",), ("graph", "specs/jamba_tiny.arch"), ("init",), ("--help",)])
def test_torch_is_not_imported(command: tuple[str, ...]) -> None:
    assert not imported_by(*command, cwd=ROOT) & HEAVY


def test_doctor() -> None:
    said = dict(line.split(maxsplit=1) for line in archc("doctor").stdout.splitlines())
    assert said["python"].startswith(sys.version.split()[0])
    assert "kernels" in said
    assert {"archc", "lark", "torch", "triton", "git"} <= said.keys()


def test_what_torch_says() -> None:
    torch = pytest.importorskip("torch")
    found = probed()
    assert found["cuda"] == torch.version.cuda
    assert len(found["devices"]) == torch.cuda.device_count()


def test_a_torch_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    for probe, said in (("raise ImportError('no such library')", "ImportError: no such library"), ("print(3)", "")):
        monkeypatch.setattr("archc.cli.doctor.PROBE", probe)
        assert devices(probed())[0] == ("torch fails", said or "exit status 0")


H200 = {"name": "NVIDIA H200", "capability": [9, 0], "bytes": 141 * 2**30}
OLD = {"name": "Tesla T4", "capability": [7, 5], "bytes": 16 * 2**30}


def machine(*gpus: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "cuda": "13.0",
        "hip": None,
        "threads": 8,
        "devices": [*gpus],
        "interpreted": False,
        "triton": "3.7",
        **more,
    }


def test_which_kernels_run() -> None:
    assert kernels(machine()) == "plain torch on the CPU"
    assert kernels(machine(H200)).startswith("Triton on the GPU, plain torch for float64")
    assert kernels(machine(H200, OLD)) == "Triton on the GPU; not tested below sm_80: Tesla T4"
    assert kernels(machine(interpreted=True)).startswith("Triton's interpreter")
    broken = machine(H200, triton_error="ImportError: no")
    assert kernels(broken) == "none: triton cannot be imported (ImportError: no)"
    assert devices(machine(H200))[2] == ("GPU 0", "NVIDIA H200, sm_90, 141.0 GiB")


# --- completion --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_commands(shell: str) -> None:
    words = {"bash": {"COMP_WORDS": "archc an", "COMP_CWORD": "1"}}.get(shell, {"_TYPER_COMPLETE_ARGS": "archc an"})
    action = {"_TYPER_COMPLETE_FISH_ACTION": "get-args"} if shell == "fish" else {}
    asked = {**os.environ, **words, **action, "_ARCHC_COMPLETE": f"complete_{shell}", "PYTHONPATH": str(ROOT)}
    program = "import sys; sys.argv = ['archc']; from archc.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", program], env=asked, capture_output=True, text=True, check=False)
    assert "analyze" in done.stdout
    assert "check" not in done.stdout
