"""Find the tile table of the scan's lane programs on this GPU, and write it as the data that templates read.

    python -m bench.tune --render             # anywhere: the kernels, those of bench.kernels (needs archc)
    python -m bench.tune --to sm_90.json      # on the GPU: needs torch and triton alone

A plan is right for a number of warps that the grid has for each multiprocessor, so the grid is what varies: batches of
4096 channels. Forward and backward are measured apart, every candidate once a round in turn; the fastest of both with
the same channels a lane make a row. The file belongs into `archc/codegen/kernels/tiles/`.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import itertools
import json
import multiprocessing
import os
import statistics
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CHANNELS, LENGTH = 4096, 2048
WARPS = (4.0, 6.0, 8.0, 10.0, 12.0, 16.0)  # a multiprocessor: the bounds of the table's rows; above the last: 24
MORE = 24.0
FORWARD = [{"lead": lead, "registers": 128} for lead in (0, 1, 2)]
BACKWARD = [
    {"span": span, "backward_lead": lead, "again": again, "backward_registers": registers}
    for span, lead, again, registers in (
        (4, 8, False, 255),
        (4, 2, False, 255),
        (4, 0, False, 255),
        (2, 2, False, 255),
        (4, 0, True, 168),
        (2, 0, True, 168),
    )
]


def plans(lanes: Any) -> list[tuple[str, Any]]:
    """Each candidate with the pass that it is for; what concerns the other pass alone is the first's."""
    made = []
    for channels, options in itertools.product((1, 2), FORWARD):
        made.append(("forward", lanes.Plan(warps=0, channels=channels, **options, **BACKWARD[0])))
    for channels, options in itertools.product((1, 2), BACKWARD):
        made.append(("backward", lanes.Plan(warps=0, channels=channels, **FORWARD[0], **options)))
    return made


def modules(folder: Path) -> tuple[Any, Any, Any]:
    """The lane programs of 4096 channels: layout and plans, forward, backward."""
    sys.path[:0] = [str(ROOT), str(folder.resolve())]
    stem = f"contest_kernels.scan_d{CHANNELS}"
    return tuple(importlib.import_module(stem + end) for end in ("_lanes_kernels", "_kernels", "_backward_kernels"))


def passes(folder: Path, warps: float, length: int) -> tuple[Any, Any]:
    """Functions that run forward and backward on a grid of so many warps a multiprocessor."""
    import torch

    from bench.contest.scan import inputs

    _, forward, backward = modules(folder)
    multiprocessors = torch.cuda.get_device_properties(0).multi_processor_count
    batch = max(1, round(warps * multiprocessors * 16 / CHANNELS))
    values = [value.detach() for value in inputs(batch, length, CHANNELS).values()]
    grad = torch.randn(batch, length, CHANNELS, device="cuda", dtype=torch.bfloat16)
    states = forward.forward(*values, None, None)[2]
    return (
        lambda: forward.forward(*values, None, None),
        lambda: backward.backward(grad, None, *values, None, states),
    )


def compile_plan(folder: Path, number: int) -> None:
    """Fill the compiler's cache."""
    lanes, *_ = modules(folder)
    name, plan = plans(lanes)[number]
    lanes.PLANS = (plan,)
    passes(folder, 0.1, 64)[name == "backward"]()


def tune(folder: Path, rounds: int) -> list[dict[str, Any]]:
    """The rows of the table."""
    import torch

    from bench.contest.measure import FLUSH_BYTES, median

    lanes, *_ = modules(folder)
    candidates = plans(lanes)
    workers = min(14, os.cpu_count() or 1)
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        list(pool.map(compile_plan, itertools.repeat(folder), range(len(candidates))))
    cold = torch.empty(FLUSH_BYTES, dtype=torch.uint8, device="cuda")
    rows: list[dict[str, Any]] = []
    for bound in (*WARPS, None):
        runs = passes(folder, bound or MORE, LENGTH)
        times: dict[int, list[float]] = {number: [] for number in range(len(candidates))}
        for _ in range(rounds):
            for number, (name, plan) in enumerate(candidates):
                lanes.PLANS = (plan,)
                times[number].append(median(runs[name == "backward"], cold))
        found = {number: statistics.median(taken) for number, taken in times.items()}
        for number, (name, plan) in enumerate(candidates):
            print(f"{bound or MORE:5.1f} warps {name:8s} {found[number]:.3f} ms {tuple(plan)[1:]}", flush=True)
        best: dict[tuple[str, int], int] = {}
        for number, (name, plan) in enumerate(candidates):
            key = name, plan.channels
            if key not in best or found[number] < found[best[key]]:
                best[key] = number
        channels = min((1, 2), key=lambda n: found[best["forward", n]] + found[best["backward", n]])
        forward, backward = (candidates[best[name, channels]][1]._asdict() for name in ("forward", "backward"))
        row = {"warps": bound, "channels": channels}
        row |= {key: forward[key] for key in FORWARD[0]} | {key: backward[key] for key in BACKWARD[0]}
        if rows and list(rows[-1].values())[1:] == list(row.values())[1:]:
            rows.pop()
        rows.append(row)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / "build" / "bench", help="of contest_kernels")
    parser.add_argument("--render", action="store_true", help="write contest_kernels and stop")
    parser.add_argument("--to", type=Path, help="the file to write: sm_90.json, sm_80.json")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    if arguments.render or not (arguments.folder / "contest_kernels").exists():
        from bench.kernels import render

        render(arguments.folder)
    if arguments.render:
        return 0
    import torch
    import triton

    rows = tune(arguments.folder, arguments.rounds)
    versions = f"{torch.cuda.get_device_name()}, torch {torch.__version__}, triton {triton.__version__}"
    origin = f"python -m bench.tune: {versions}, {datetime.date.today()}"
    lines = ",\n".join("    " + json.dumps(row) for row in rows)
    text = f'{{\n  "origin": {json.dumps(origin)},\n  "selective_scan": [\n{lines}\n  ]\n}}\n'
    print(text)
    if arguments.to:
        arguments.to.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
