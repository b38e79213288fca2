"""Tile tables by target, and the command that compiles a package's kernels before they are needed."""

import json
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

from archc import compiler
from archc.codegen.kernels.selective_scan import SelectiveScan
from archc.codegen.kernels.tiles import TARGETS, table

ROOT = Path(__file__).parents[1]
SPEC = ROOT / "specs" / "jamba_tiny.arch"
PLAN = ["warps", "channels", "lead", "registers", "span", "backward_lead", "again", "backward_registers"]


def built(target: str) -> dict[str, str]:
    return compiler.build(compiler.load(compiler.source(str(SPEC), SPEC.read_bytes())), target=target)


def test_targets_have_tables() -> None:
    assert compiler.targets() == TARGETS
    found = {path.name for path in files("archc.codegen.kernels.tiles").iterdir() if path.name.endswith(".json")}
    assert found == {f"{target}.json" for target in TARGETS}


@pytest.mark.parametrize("target", TARGETS)
def test_plans_serve_every_grid_and_can_run(target: str) -> None:
    rows = table(target)["selective_scan"]
    assert all(list(row) == PLAN for row in rows)
    bounds = [row["warps"] for row in rows]
    assert bounds[-1] is None
    assert bounds[:-1] == sorted(bounds[:-1])
    for row in rows:
        assert row["channels"] in (1, 2)
        assert 8 % row["span"] == 0
        assert 0 <= row["lead"] <= 8
        assert 0 <= row["backward_lead"] <= 8
        assert max(row["registers"], row["backward_registers"]) <= 255


def test_a_target_changes_the_tables_alone() -> None:
    sm_90, sm_80 = built("sm_90"), built("sm_80")
    assert built("sm_90") == sm_90
    changed = {name for name in sm_90 if sm_90[name] != sm_80[name]}
    assert changed == {"selective_scan_lanes_kernels.py", "namespace.py"}
    assert table("sm_80")["origin"] in sm_80["selective_scan_lanes_kernels.py"]


def test_unknown_target_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "archc", "build", str(SPEC), "-o", str(tmp_path / "x"), "--target", "sm_70"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "sm_90, sm_80" in done.stderr


def test_a_view_prints_its_table() -> None:
    options = dict.fromkeys(("gate", "skip", "dt_bias", "dt_softplus"), True)
    zero = {"flops_forward": "0", "flops_backward": "0"}
    view = SelectiveScan(d_inner=32, d_state=16, target="sm_80", **options, **zero)
    rows = json.loads((files("archc.codegen.kernels.tiles") / "sm_80.json").read_text())["selective_scan"]
    assert len(view.plans) == len(rows)
    assert view.plans[-1].startswith('float("inf"), ')


def test_warmup_reports_first_and_second_passes(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    package = tmp_path / "warm"
    package.mkdir()
    for name, text in built("sm_90").items():
        (package / name).write_text(text)
    command = [sys.executable, "-m", "warm.warmup", "--length", "8", "--generate", "--device", "cpu"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "first passes" in done.stdout
    assert "1 x 8" in done.stdout
