"""Predicted and measured memory of training, prefill and decode on one GPU, and step times beside their lower bounds.

    python bench/memory.py                            # both, on one machine
    python bench/memory.py --render build/memory      # packages and predictions; needs archc, no torch
    python bench/memory.py build/memory               # on the GPU; needs torch and triton, no archc

Eight models of 0.3B to 3B that between them use every mixer, at two lengths and three modes of recomputation. Measured
is `torch.cuda.max_memory_allocated` over whole steps of the emitted optimizer, against what there was before the model.
"""

from __future__ import annotations

import importlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FROM_SPECS = ("mamba_370m", "mamba2_780m", "samba_421m", "zamba2_1_2b")
LIKE = {
    "jamba_like": "vocab 65536; d_model 1024; mlp swiglu(2816)"
    "; let mamba = mamba(inner_norm=rms); block x2 < mamba x4, attn gqa(16,4), mamba x3 > moe every 2 top2/8",
    "nvidia_like": "vocab 32000; d_model 2048; mlp none; let m = mamba2(n_heads=64, n_groups=8, chunk=128)"
    "; let f = gelu(8192); block x4 < m, f, m, f, attn gqa(16,4), f >",
    "llama_like": "vocab 32000; d_model 2048; mlp swiglu(5632); block x22 < attn gqa(32,4) rope(theta=1e4) >",
    "mixtral_like": "vocab 32000; d_model 1024; mlp swiglu(3584)"
    "; block x12 < attn gqa(16,8) rope(theta=1e6) > moe(router=softmax(renorm)) top2/8",
}
LENGTHS = (2048, 4096)
TOKENS = 8192  # of a step: the batch follows from the length
MODES = ("none", "selective", "full")


def render(folder: Path) -> None:
    """Packages, and `predicted.json`: for each model, length and mode the bytes, and the bound of the time."""
    from archc import compiler, sizing
    from archc.diagnostics import Source
    from archc.passes.accelerators import ACCELERATORS
    from archc.passes.plan import Training
    from archc.passes.workload import Workload
    from archc.report.sizing import Request

    texts = {name: (ROOT / "specs" / f"{name}.arch").read_text("utf-8") for name in FROM_SPECS}
    texts |= {name: f"model {name}\n{text}\n" for name, text in LIKE.items()}
    predicted: dict[str, Any] = {}
    for name, text in texts.items():
        model = compiler.load(Source(name, text), ["context=4096"])
        package = folder / name
        package.mkdir(parents=True, exist_ok=True)
        for file, content in compiler.build(model).items():
            (package / file).write_text(content, encoding="utf-8")
        rows = predicted[name] = {"parameters": compiler.parameters(model, "bf16").total}
        for length in LENGTHS:
            workload = Workload(length, batch=TOKENS // length)
            for mode in MODES:
                request = Request(("train",), training=Training(recompute=mode), device=ACCELERATORS["h200"])
                (sized,) = sizing.size(model, workload, request).phases
                rows[f"train {length} {mode}"] = [sized.memory.peak.n_bytes, float(sized.roofline.total.seconds)]
            for phase in ("prefill", "decode"):
                (sized,) = sizing.size(model, workload, Request((phase,), device=ACCELERATORS["h200"])).phases
                rows[f"{phase} {length}"] = [sized.memory.peak.n_bytes, float(sized.roofline.total.seconds)]
    (folder / "predicted.json").write_text(json.dumps(predicted, indent=1), encoding="utf-8")


def measure(folder: Path) -> int:
    """A row for each prediction. Non-zero if one is more than 3 % off, or more than 1 % below the truth."""
    import torch

    sys.path.insert(0, str(folder))
    predicted = json.loads((folder / "predicted.json").read_text("utf-8"))
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {TOKENS} tokens a step")
    print("| model | case | predicted MiB | measured MiB | error | least ms | measured ms |")
    print("|---|---|---:|---:|---:|---:|---:|")
    wrong = 0
    for name, rows in predicted.items():
        for case, (n_bytes, seconds) in ((case, row) for case, row in rows.items() if case != "parameters"):
            phase, length, *mode = case.split()
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            peak, taken = run(name, phase, int(length), mode)
            error = n_bytes / (peak - before) - 1
            wrong += not -0.01 <= error <= 0.03
            print(
                f"| {name} | {case} | {n_bytes / 2**20:.1f} | {(peak - before) / 2**20:.1f} | {100 * error:+.1f}% "
                f"| {1e3 * seconds:.3f} | {1e3 * taken:.3f} |",
                flush=True,
            )
            torch.cuda.empty_cache()
    print(f"{wrong} predictions are outside -1 % to 3 %")
    return 1 if wrong else 0


def run(name: str, phase: str, length: int, mode: list[str]) -> tuple[int, float]:
    """Peak bytes and seconds of one case."""
    import torch

    batch = TOKENS // length
    if phase == "train":
        measuring = importlib.import_module(f"{name}.measure")
        measuring.WARM, measuring.TIMED = 2, 3
        found = measuring.step(batch, length, torch.bfloat16, mode[0])
        return found["peak_bytes"], found["step_seconds"]
    return serve(name, phase, batch, length)


def serve(name: str, phase: str, batch: int, length: int) -> tuple[int, float]:
    """The last chunk of a prompt, or the token behind it; the time is that of the whole prompt, or of one token."""
    import torch

    model_of, precision = importlib.import_module(f"{name}.model"), importlib.import_module(f"{name}.precision")
    generate = importlib.import_module(f"{name}.generate")
    with torch.device("cuda"):
        model = model_of.Model()
        tokens = torch.randint(model_of.VOCAB, (batch, length))
    precision.cast_(model, torch.bfloat16, model.keep_fp32())
    clock = Clock()
    with torch.no_grad():
        for _ in range(2):  # the first compiles
            cache = model.init_cache(batch, length, dtype=torch.bfloat16, device="cuda")
            last = length - 1 if phase == "decode" else length
            clock.start()
            for start in range(0, last, generate.PREFILL):
                model(tokens[:, start : min(start + generate.PREFILL, last)], cache=cache)
            if phase == "decode":
                clock.start()
                model(tokens[:, last:], cache=cache)
            taken = clock.stop()
    return torch.cuda.max_memory_allocated(), taken


class Clock:
    """Time on the GPU; the peak of memory counts from its start, too."""

    def start(self) -> None:
        import torch

        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        self.begin, self.end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self.begin.record()

    def stop(self) -> float:
        """Seconds."""
        import torch

        self.end.record()
        torch.cuda.synchronize()
        return self.begin.elapsed_time(self.end) / 1e3


def main(arguments: list[str]) -> int:
    if not arguments:
        with tempfile.TemporaryDirectory() as folder:
            render(Path(folder))
            return measure(Path(folder))
    if arguments[0] == "--render":
        render(Path(arguments[1]))
        return 0
    return measure(Path(arguments[0]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
