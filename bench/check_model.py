"""Check generated packages on a GPU: against their own float64 form on the CPU, in all modes, eager and compiled.

    python bench/check_model.py [--compile] PACKAGE_DIR [PACKAGE_DIR ...]

A package directory is what `archc build SPEC -o DIR` writes. Prints one line a check and a verdict last; a log of the
same lines goes to `$OUT/check_model.log` where that is set.
"""

from __future__ import annotations

import copy
import importlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

LENGTH = 131  # odd, and no multiple of any tile
COMPILE = "--compile" in sys.argv
LINES: list[str] = []
FAILED: list[str] = []


def say(line: str) -> None:
    print(line, flush=True)
    LINES.append(line)


def check(name: str, error: float, limit: float) -> None:
    """One verdict; NaN never passes."""
    passed = error <= limit
    say(f"{'ok  ' if passed else 'FAIL'} {name:<58} error {error:.2e}  limit {limit:.0e}")
    if not passed:
        FAILED.append(name)


def distance(a: Tensor, b: Tensor) -> float:
    """||a - b|| / ||b|| in float64 on the CPU."""
    a, b = a.detach().double().cpu(), b.detach().double().cpu()
    return float((a - b).norm() / b.norm().clamp_min(1e-300))


def loss_and_grads(
    model: Any, tokens: Tensor, targets: Tensor, positions: Tensor | None
) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad(set_to_none=True)
    logits = model(tokens, positions=positions)
    loss = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1).to(torch.promote_types(logits.dtype, torch.float32)), targets.flatten()
    )
    loss.backward()
    return logits, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def check_package(path: Path) -> None:
    sys.path.insert(0, str(path.parent))
    module = importlib.import_module(f"{path.name}.model")
    precision = importlib.import_module(f"{path.name}.precision")
    say(f"--- {path.name}: torch {torch.__version__}, {torch.cuda.get_device_name()}")
    torch.manual_seed(0)
    exact = module.Model()
    precision.cast_(exact, torch.float64, exact.keep_fp32())
    tokens = torch.randint(module.VOCAB, (2, LENGTH))
    targets = torch.randint(module.VOCAB, (2, LENGTH))
    packed = torch.cat([torch.arange(40), torch.arange(1), torch.arange(LENGTH - 41)]).expand(2, LENGTH)
    for label, positions in (("one document", None), ("packed", packed)):
        want, want_grads = loss_and_grads(exact, tokens, targets, positions)
        # float32 sums in other orders; bfloat16 rounds every activation to 8 bits through all layers
        for dtype, limit, grad_limit in ((torch.float32, 1e-4, 1e-3), (torch.bfloat16, 6e-2, 2e-1)):
            model = copy.deepcopy(exact)
            precision.cast_(model, dtype, model.keep_fp32())
            model = model.cuda()
            where = None if positions is None else positions.cuda()
            got, grads = loss_and_grads(model, tokens.cuda(), targets.cuda(), where)
            check(f"{label}, {dtype}: logits", distance(got, want), limit)
            names = sorted(want_grads)
            flat = [torch.cat([g[n].detach().double().cpu().flatten() for n in names]) for g in (grads, want_grads)]
            check(f"{label}, {dtype}: all gradients", distance(*flat), grad_limit)
            if COMPILE and dtype == torch.bfloat16:
                check_compiled(
                    f"{label}, {dtype}", model, tokens.cuda(), targets.cuda(), where, got, flat[0], names, dtype
                )
    check_modes(module, exact, precision, tokens)


def check_compiled(
    label: str,
    model: Any,
    tokens: Tensor,
    targets: Tensor,
    positions: Tensor | None,
    eager: Tensor,
    eager_grads: Tensor,
    names: list[str],
    dtype: torch.dtype,
) -> None:
    """Inductor on the whole graph gives what eager gives."""
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True)
    start = time.perf_counter()
    model.zero_grad(set_to_none=True)
    logits = compiled(tokens, positions=positions)
    torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten()).backward()
    torch.cuda.synchronize()
    # fused pointwise chains skip roundings that eager makes
    limit = 1e-4 if dtype == torch.float32 else 5e-2
    check(f"{label}: compiled logits ({time.perf_counter() - start:.0f} s)", distance(logits, eager), limit)
    grads = dict(model.named_parameters())
    flat = torch.cat([grads[n].grad.detach().double().cpu().flatten() for n in names])
    check(f"{label}: compiled gradients", distance(flat, eager_grads), 4 * limit)


def check_modes(module: ModuleType, exact: Any, precision: ModuleType, tokens: Tensor) -> None:
    """Whole sequence, chunks and single tokens agree on the GPU."""
    for dtype, limit in ((torch.float32, 1e-4), (torch.bfloat16, 5e-2)):
        model = copy.deepcopy(exact)
        precision.cast_(model, dtype, model.keep_fp32())
        model = model.cuda().eval()
        on_gpu = tokens.cuda()
        with torch.no_grad():
            whole = model(on_gpu)
            for label, sizes in (("chunks", [64, 1, 50, LENGTH - 115]), ("single tokens", [1] * LENGTH)):
                cache = model.init_cache(2, LENGTH)
                pieces = [model(piece, cache=cache) for piece in on_gpu.split(sizes, dim=1)]
                check(f"{label}, {dtype}", distance(torch.cat(pieces, dim=1), whole), limit)


def guarded(run: Callable[[], None], name: str) -> None:
    try:
        run()
    except Exception as failure:  # one package must not hide the others' results
        say(f"FAIL {name}: {type(failure).__name__}: {str(failure)[:2000]}")
        FAILED.append(name)


def main() -> int:
    for argument in sys.argv[1:]:
        if argument == "--compile":
            continue
        path = Path(argument).resolve()
        guarded(lambda path=path: check_package(path), path.name)
    say(f"{len(FAILED)} failed" + (": " + ", ".join(FAILED) if FAILED else ""))
    if os.environ.get("OUT"):
        Path(os.environ["OUT"], "check_model.log").write_text("\n".join(LINES) + "\n")
    return bool(FAILED)


if __name__ == "__main__":
    sys.exit(main())
