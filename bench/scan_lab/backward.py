"""Where the time of the lane programs' backward goes, and what shortens it: the production text with named edits.

    python bench/scan_lab/backward.py --render build/lab   # anywhere: one package a variant (needs archc and jinja2)
    python bench/scan_lab/backward.py build/lab            # on the GPU: needs torch and triton alone

A variant that starts with "no" leaves a stage out, so its results are wrong: the difference to `base` is what the stage
costs. All others must equal `base` to rounding. Prints a table last; results also go to `scan_backward.json` in $OUT.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import shutil
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SHAPES = {"B4 D8192": (4, 4096, 8192), "B4 D5120": (4, 4096, 5120), "B1 D8192": (1, 4096, 8192)}
SECONDS = 230
Edit = tuple[str, str, str]  # file's ending, text, what replaces it everywhere

LAUNCH = "            CHANNELS=channels,\n            num_warps=1,\n        )"
LOADS = """            x = load_own(x_ptr, start, x_t, token, d, left)
            dt = load_own(dt_ptr, start, dt_t, token, d, left)
            dy = load_own(grad_y_ptr, start, grad_y_t, token, d, left)
            z = load_own(z_ptr, start, z_t, token, d, left)
"""
SLOT_LOOP = "        for group_done in range(0, groups):\n"
STREAMS = {"x": "x", "dt": "dt", "dy": "grad_y", "z": "z"}


def registers(number: int) -> Edit:
    return "_backward_kernels.py", LAUNCH, LAUNCH.replace("num_warps=1", f"num_warps=1, maxnreg={number}")


def ahead() -> list[Edit]:
    """The inputs of the next group are loaded before this group's work."""
    names = ", ".join(STREAMS)
    first = "".join(f"        next_{v} = load_own({p}_ptr, start, {p}_t, token, d, left)\n" for v, p in STREAMS.items())
    later = "            before = gl.where(group_done + 1 < groups, left + 8, 0)\n" + "".join(
        f"            next_{v} = load_own({p}_ptr, start - 8, {p}_t, token, d, before)\n" for v, p in STREAMS.items()
    )
    taken = f"            {names} = {', '.join('next_' + v for v in STREAMS)}\n"
    return [("_backward_kernels.py", SLOT_LOOP, first + SLOT_LOOP), ("_backward_kernels.py", LOADS, taken + later)]


AGAIN: list[Edit] = [  # decays a second time and not kept; a zero that the compiler cannot see keeps the two apart
    (
        "_lanes_reverse_kernels.py",
        "                grad_h *= decays[j - 4 * half]\n",
        "                grad_h *= exp2(A * share(late_untils, j)[:, :, None])\n",
    ),
    (
        "_lanes_reverse_kernels.py",
        "    halves = ()\n",
        "    zero = (start >> 40).to(gl.float32)\n"
        "    late_untils = (untils[0] + zero, untils[1] + zero)\n    halves = ()\n",
    ),
]
NO_SUMS: list[Edit] = [
    ("_lanes_reverse_kernels.py", f"shared_sum({low}, {high}, (r & {bit}) != 0, {4 * bit})", f"({low} + {high})")
    for low, high, bit in (
        ("even[0]", "odd[0]", 1),
        ("even[1]", "odd[1]", 1),
        ("early[0]", "late[0]", 2),
        ("early[1]", "late[1]", 2),
        ("early[0]", "late[0]", 4),
        ("early[1]", "late[1]", 4),
    )
]
VARIANTS: dict[str, list[Edit]] = {
    "base": [],
    "r168": [registers(168)],
    "r208": [registers(208)],
    "ahead": ahead(),
    "ahead r168": [*ahead(), registers(168)],
    "again": AGAIN,
    "again r168": [*AGAIN, registers(168)],
    "again r128": [*AGAIN, registers(128)],
    "again ahead r208": [*AGAIN, *ahead(), registers(208)],
    "chunk 64": [("d8192.py", "KERNEL_CHUNK = 32", "KERNEL_CHUNK = 64"), ("d5120.py", "CHUNK = 32", "CHUNK = 64")],
    "forward r0": [("_kernels.py", "            maxnreg=MAX_REGISTERS,\n", "")],
    "forward r112": [("_kernels.py", "MAX_REGISTERS = 128", "MAX_REGISTERS = 112")],
    "no atomics": [("_backward_kernels.py", "mask=n_r < left, sem", "mask=n_r < left - 100_000_000, sem")],
    "no channel sums": NO_SUMS,
    "no level 1": [
        ("_backward_kernels.py", "for group in range(0, groups - 1):", "for group in range(0, groups - 99):")
    ],
    "no B": [("_lanes_reverse_kernels.py", "load_states(B_ptr, start, n, ", "load_states(B_ptr, start * 0, n, 0 * ")],
    "no kept x z dy": [("_backward_kernels.py", LOADS, LOADS.replace("start,", "start * 0,"))],
}


def render(folder: Path) -> None:
    sys.path.insert(0, str(ROOT))
    from archc.codegen.kernels import SelectiveScan
    from archc.codegen.kernels import render as render_view

    options = dict.fromkeys(("gate", "skip", "dt_bias", "dt_softplus"), True)
    for index, (variant, edits) in enumerate(VARIANTS.items()):
        package = folder / f"scan_lab_{index}"
        package.mkdir(parents=True, exist_ok=True)
        applied = set()
        for d_inner in (8192, 5120):
            view = SelectiveScan(
                name=f"scan_d{d_inner}", d_inner=d_inner, d_state=16, flops_forward="0", flops_backward="0", **options
            )
            for file, text in render_view(view).items():
                for number, (ending, old, new) in enumerate(edits):
                    if file.endswith(ending) and old in text:
                        text = text.replace(old, new)
                        applied.add(number)
                (package / file).write_text(text)
        if applied != set(range(len(edits))):
            raise ValueError(f"{variant}: edits {set(range(len(edits))) - applied} found nothing to replace")
        for file in ("dispatch.py", "recurrence.py"):
            shutil.copy(ROOT / "archc" / "codegen" / "runtime" / file, package / file)
        (package / "namespace.py").write_text(f'NAMESPACE = "scan_lab_{index}"\n')
        (package / "__init__.py").write_text("")


def ops(folder: Path, variant: str, d_inner: int) -> tuple[Any, Any]:
    sys.path.insert(0, str(folder.resolve()))
    package = f"scan_lab_{list(VARIANTS).index(variant)}"
    forward = importlib.import_module(f"{package}.scan_d{d_inner}_kernels")
    return forward.forward, importlib.import_module(f"{package}.scan_d{d_inner}_backward_kernels").backward


def inputs(batch: int, length: int, d_inner: int) -> tuple[list[Any], Any]:
    import torch

    torch.manual_seed(length + d_inner)
    half = {"device": "cuda", "dtype": torch.bfloat16}
    x, z = torch.randn(batch, length, 2 * d_inner, **half).split(d_inner, -1)
    _, B, C = torch.randn(batch, length, 48, **half).split((16, 16, 16), -1)
    dt = torch.randn(batch, length, d_inner, **half)
    A_log = torch.log(torch.arange(1, 17, device="cuda").float()).repeat(d_inner, 1)
    D, bias = torch.randn(d_inner, device="cuda"), torch.randn(d_inner, device="cuda") * 0.5 - 3
    return [x, dt, A_log, B, C, D, z, bias], torch.randn(batch, length, d_inner, **half)


def results(folder: Path, variant: str, d_inner: int) -> list[Any]:
    forward, backward = ops(folder, variant, d_inner)
    values, grad = inputs(2, 333, d_inner)
    y, final, states = forward(*values, None, None)
    return [y, final, *backward(grad, None, *values, None, states)]


def compile_and_compare(folder: Path, variant: str, d_inner: int) -> tuple[str, int, float, float]:
    """Seconds and the largest difference to base, relative to the largest element; this fills the compiler's cache."""
    start = time.monotonic()
    mine = results(folder, variant, d_inner)
    seconds = time.monotonic() - start
    theirs = results(folder, "base", d_inner)
    worst = max(
        ((a.double() - b.double()).abs().max() / b.double().abs().max()).item()
        for a, b in zip(mine, theirs, strict=True)
    )
    return variant, d_inner, seconds, worst


def run(folder: Path) -> None:
    begin = time.monotonic()
    context = multiprocessing.get_context("spawn")
    ready: dict[str, list[str]] = {}
    with ProcessPoolExecutor(min(12, os.cpu_count() or 1), mp_context=context) as pool:
        jobs = {pool.submit(compile_and_compare, folder, v, d): (v, d) for v in VARIANTS for d in (8192, 5120)}
        for job in as_completed(jobs):
            try:
                variant, d_inner, seconds, worst = job.result()
                ready.setdefault(variant, []).append(f"D{d_inner}: {seconds:.0f} s, {worst:.0e} from base")
            except Exception as problem:
                print("FAIL", jobs[job], type(problem).__name__, str(problem)[:300], flush=True)
    import torch
    import triton

    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, triton {triton.__version__}", flush=True)
    times: dict[str, dict[str, list[float]]] = {variant: {} for variant in ready}
    bench = partial(triton.testing.do_bench, warmup=15, rep=60, return_mode="median")
    for shape, (batch, length, d_inner) in SHAPES.items():
        values, grad = inputs(batch, length, d_inner)
        for variant in VARIANTS:
            if variant not in ready or time.monotonic() - begin > SECONDS:
                continue
            forward, backward = ops(folder, variant, d_inner)
            lanes = importlib.import_module(f"{forward.__module__.removesuffix('_kernels')}_lanes_kernels")
            row = times[variant].setdefault(shape, [])
            for few in (1 << 20, 0):  # one channel a lane, then two
                lanes.FEW_CHANNELS = few
                states = forward(*values, None, None)[2]
                row.append(bench(lambda f=forward, v=values: f(*v, None, None)))
                row.append(bench(lambda b=backward, v=values, g=grad, s=states: b(g, None, *v, None, s)))
            print(shape, variant, " ".join(f"{ms:.3f}" for ms in row), flush=True)
        del values, grad
        torch.cuda.empty_cache()
    Path(os.environ.get("OUT", folder), "scan_backward.json").write_text(json.dumps({"ready": ready, "times": times}))
    print("\nms: forward and backward with one channel a lane, then with two")
    for variant, rows in times.items():
        cells = " | ".join(f"{shape} " + " ".join(f"{ms:6.3f}" for ms in row) for shape, row in rows.items())
        print(f"{variant:17s} {cells} | {'; '.join(ready[variant])}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="holds the packages scan_lab_*")
    parser.add_argument("--render", action="store_true", help="write them and stop")
    arguments = parser.parse_args()
    if arguments.render:
        render(arguments.folder)
    else:
        run(arguments.folder)
