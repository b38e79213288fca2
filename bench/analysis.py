"""How long analyses take: a plan of 256 devices, a thousand million layers, and a sweep of a thousand variants.

    python bench/analysis.py [ROUNDS]

Whole processes are timed by the wall and by the processor, for a machine that does other things too shows only in the
first. The sweep runs in one process on one core, without torch: every variant is a spec of its own, with parameters,
caches, FLOPs, and memory of a training and a decode step. Exits non-zero if a process takes a second of processor time
or more, or the sweep ten.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice, product
from pathlib import Path

from archc import compiler, sizing
from archc.compiler import Model
from archc.diagnostics import Source
from archc.passes.accelerators import ACCELERATORS
from archc.passes.plan import Plan, Training
from archc.passes.workload import Workload
from archc.report.sizing import Request

ROOT = Path(__file__).parents[1]
ROUNDS = 5
VARIANTS = 1000
MAX_SECONDS_OF_A_PROCESS = 1.0
MAX_SECONDS_OF_A_SWEEP = 10.0

SPEC = """
vocab 65536; d_model {d_model}; context 256Ki; mlp swiglu({d_ff})
block x{blocks} < mamba x{mamba}, attn gqa({heads},8) d_head=128 > moe every {every} top2/{experts}
"""
MANY_LAYERS = (
    "vocab 65536; d_model 4096; mlp swiglu(14336); block x{n} < mamba x7, attn gqa(32,8) > moe every {every} top2/16"
)
WORKLOAD = Workload(8192)
REQUEST = Request(("train",), Plan(fsdp=8), Training(recompute="full"), ACCELERATORS["h100"])
PLAN = ["--gpu", "h100", "--tp", "8", "--pp", "4", "--fsdp", "8", "--ep", "16", "--recompute", "full"]


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    with tempfile.TemporaryDirectory() as folder:
        commands = {"jamba_1_5_large, 256 devices": ["specs/jamba_1_5_large.arch", *PLAN, "--context", "8192"]}
        for n, every in ((100_000, 2), (10**9, 2), (10**9, 3)):
            path = Path(folder) / f"x{n}_every_{every}.arch"
            path.write_text(MANY_LAYERS.format(n=n, every=every) + "\n", encoding="utf-8")
            commands[f"x{n}, every {every}"] = [str(path)]
        slowest = 0.0
        print(f"whole process, the quickest of {rounds}, in seconds")
        for name, arguments in commands.items():
            wall, processor = zip(*(timed(arguments) for _ in range(rounds)), strict=True)
            slowest = max(slowest, min(processor))
            print(f"  {name:28} wall {min(wall):5.2f}  processor {min(processor):5.2f}")
    begin, spent = time.process_time(), 0.0
    for model in swept():
        counted = time.process_time()
        sizing.memory(model, WORKLOAD, REQUEST, "train")
        sizing.memory(model, WORKLOAD, REQUEST, "decode")
        spent += time.process_time() - counted
    seconds = time.process_time() - begin - spent
    assert "torch" not in sys.modules
    print(f"sweep of {VARIANTS} variants in one process, in seconds of processor time")
    print(f"  spec to parameters, caches and FLOPs {seconds:5.2f}; memory of training and decode on top {spent:5.2f}")
    return 0 if slowest < MAX_SECONDS_OF_A_PROCESS and seconds < MAX_SECONDS_OF_A_SWEEP else 1


def timed(arguments: list[str]) -> tuple[float, float]:
    """Wall-clock and processor time of `archc analyze`."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, "-m", "archc", "analyze", *arguments]
    subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, check=True)
    wall, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def swept() -> Iterator[Model]:
    """`VARIANTS` different models, analysed."""
    ranges = {
        "d_model": range(1024, 6144, 512),
        "d_ff": (4096, 8192, 14336),
        "blocks": range(2, 12, 2),
        "mamba": (3, 5, 7),
        "heads": (16, 32),
        "every": (1, 2, 3),
        "experts": (8, 16),
    }
    for values in islice(product(*ranges.values()), VARIANTS):
        text = SPEC.format(**dict(zip(ranges, values, strict=True)))
        model = compiler.load(Source("sweep", text))
        compiler.analyse(model, WORKLOAD)
        yield model


if __name__ == "__main__":
    sys.exit(main())
