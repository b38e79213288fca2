"""Our kernels, others' and the floor, measured together: medians of rounds in which all run in turn.

    python -m bench.kernels --render             # anywhere: writes the kernels to measure to build/bench (needs archc)
    python -m bench.kernels                      # on a GPU: needs torch, triton and rich
    python -m bench.kernels --only scan          # one family (repeatable): a file of bench/contest
    python -m bench.kernels --json out.json

Ratios count, milliseconds are for orientation. A ratio is against the fastest peer that can be imported; where none
can, the row says so and no figure of another run takes its place. The floor is the larger of bytes over the bandwidth
of a copy, base-2 exponentials over their rate, and FLOPs over the rate of a matrix product, all measured in this run.
The exit status tells whether everything that is asked for was reached.
"""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def render(folder: Path) -> None:
    """Write the package that is measured."""
    sys.path.insert(0, str(ROOT))
    from archc.codegen.kernels import render as rendered
    from archc.codegen.kernels.causal_conv1d import CausalConv1d
    from archc.codegen.kernels.rms_norm import RmsNorm
    from archc.codegen.kernels.selective_scan import SelectiveScan

    every = dict.fromkeys(("gate", "skip", "dt_bias", "dt_softplus"), True)
    zero = {"flops_forward": "0", "flops_backward": "0"}
    package = folder / "contest_kernels"
    package.mkdir(parents=True, exist_ok=True)
    views = (
        *(SelectiveScan(name=f"scan_d{n}", d_inner=n, d_state=16, **every, **zero) for n in (8192, 5120, 4096)),
        CausalConv1d(width=4, bias=True, silu=True, **zero),
        RmsNorm(),
    )
    for view in views:
        for file, text in rendered(view).items():
            (package / file).write_text(text)
    for file in sorted({file for view in views for file in view.runtime}):
        shutil.copy(ROOT / "archc" / "codegen" / "runtime" / file, package / file)
    (package / "namespace.py").write_text('NAMESPACE = "contest_kernels"\n')
    names = [view.name for view in views]
    (package / "__init__.py").write_text("".join(f"from .{name} import {name} as {name}\n" for name in names))


def families(only: list[str]) -> list[Any]:
    """The modules of `bench/contest` that have rows."""
    import bench.contest as contest

    names = [found.name for found in pkgutil.iter_modules(contest.__path__)]
    modules = [importlib.import_module(f"bench.contest.{name}") for name in names if not only or name in only]
    return [module for module in modules if hasattr(module, "rows")]


def summary(measured: Any) -> dict[str, Any]:
    """A row as JSON: every time and peak, and the ratios that are asked for."""
    row, times, peaks = measured.row, measured.times, measured.peaks
    ours, others = times["ours"], {name: ms for name, ms in times.items() if name != "ours"}
    best = min(others, key=lambda name: others[name], default=None)
    found: dict[str, Any] = {"kernel": row.kernel, "shape": row.shape, "ms": times, "peak_bytes": peaks}
    found |= {"missing": measured.missing, "floor_ms": measured.floor, "times_floor": ours / measured.floor}
    found |= {"best": best, "faster": None, "memory": None}
    if best is not None:
        found |= {"faster": others[best] / ours, "memory": peaks["ours"] / max(1, peaks[best])}
    found["asked"] = {"faster": row.faster, "times_floor": row.floors, "memory": row.memory}
    found["short"] = [
        key
        for key, at_least in (("faster", True), ("times_floor", False), ("memory", False))
        if found["asked"][key] is not None
        and found[key] is not None
        and (found[key] < found["asked"][key] if at_least else found[key] > found["asked"][key])
    ]
    return found


def show(found: list[dict[str, Any]], title: str) -> None:
    """The table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    for column in ("kernel", "shape", "ours ms", "peer", "peer ms", "faster", "x floor", "memory"):
        table.add_column(column, justify="left" if column in ("kernel", "shape", "peer") else "right")

    def ratio(entry: dict[str, Any], key: str, sign: str) -> str:
        asked, value = entry["asked"][key], entry[key]
        text = "-" if value is None else f"{value:.2f}"
        if asked is not None:
            text += f" ({sign}{asked:g})"
        return f"[red]{text}[/red]" if key in entry["short"] else text

    for entry in found:
        best = entry["best"]
        name = best or "; ".join(f"{key}: {why}" for key, why in entry["missing"].items())
        table.add_row(
            entry["kernel"],
            entry["shape"],
            f"{entry['ms']['ours']:.3f}",
            name,
            "-" if best is None else f"{entry['ms'][best]:.3f}",
            ratio(entry, "faster", ">= "),
            ratio(entry, "times_floor", "<= "),
            ratio(entry, "memory", "<= "),
        )
    Console(width=170).print(table)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / "build" / "bench", help="of contest_kernels")
    parser.add_argument("--render", action="store_true", help="write contest_kernels and stop")
    parser.add_argument("--only", action="append", default=[], help="a family alone")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write everything there too")
    arguments = parser.parse_args()
    if arguments.render or not (arguments.folder / "contest_kernels").exists():
        render(arguments.folder)
    if arguments.render:
        return 0
    sys.path[:0] = [str(ROOT), str(arguments.folder.resolve())]
    import torch
    import triton

    from bench.contest.measure import ceilings, measure

    package = importlib.import_module("contest_kernels")
    title = f"{torch.cuda.get_device_name()}, torch {torch.__version__}, triton {triton.__version__}"
    found, top = [], ceilings()
    print(title, {key: f"{value:.3e}" for key, value in asdict(top).items()}, flush=True)
    for family in families(arguments.only):
        for row in family.rows():
            found.append(summary(measure(row, package, top, arguments.rounds)))
            print(json.dumps({key: found[-1][key] for key in ("kernel", "shape", "ms", "missing")}), flush=True)
            torch.cuda.empty_cache()
    if arguments.json:
        arguments.json.write_text(json.dumps({"device": title, "ceilings": asdict(top), "rows": found}, indent=1))
    show(found, title)
    return 1 if any(entry["short"] for entry in found) else 0


if __name__ == "__main__":
    sys.exit(main())
