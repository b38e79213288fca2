"""Mamba-2's recurrence on a GPU: right at every dtype against float64, and how fast beside mamba_ssm's Triton kernels.

    python bench/check_ssd.py --render build    # anywhere: writes build/ssd_pkg (needs archc and jinja2)
    python bench/check_ssd.py build             # on the GPU: needs torch and triton alone
    PYTHONPATH=MAMBA python bench/check_ssd.py build    # the same beside a checkout of state-spaces/mamba

Outputs start as NaN, activations are slices of one wider tensor, and backward runs twice and must agree to the last
bit. Times are medians of rounds that alternate between the two, each a median of many runs with a cold L2. The report
goes to standard output and to `check_ssd.log` in $OUT (default: the folder given); the exit status says whether all is
right.
"""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import os
import shutil
import statistics
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial, partialmethod
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# Heads, their width, groups, states, and the limits of dt.
SIZES: dict[str, tuple[int, int, int, int, str, str]] = {
    "ssd_h80": (80, 64, 1, 128, "0.0", "inf"),
    "ssd_g8": (128, 64, 8, 128, "0.0", "inf"),
    "ssd_n64": (80, 64, 1, 64, "0.0", "inf"),
    "ssd_limited": (6, 64, 2, 128, "0.05", "1.5"),
    "ssd_wide": (4, 128, 2, 128, "0.0", "inf"),
    "ssd_n256": (4, 64, 1, 256, "0.0", "inf"),
}
TIMED = ("ssd_h80", "ssd_g8", "ssd_n64")
LENGTHS = (1, 2, 63, 64, 65, 129, 1000, 3001)
REPEATS = 20
# Relative error in the 2-norm: half an ulp of each operand of a product and of the result, in quadrature; float32 loses
# what sums of log2 decays of a few hundred lose.
TOLERANCE = {"float32": 4e-5, "bfloat16": 1.2e-2, "float16": 2e-3}
CHECKS = [
    *((name, kind, True) for name in SIZES for kind in ("bfloat16", "float32")),
    *(("ssd_h80", kind, False) for kind in ("bfloat16", "float16")),
]
COPY_BANDWIDTH, MATMUL_RATE = 4.28e12, 687e12  # bytes a second of a copy, FLOP a second in bf16: one H200, measured


def render(folder: Path) -> None:
    sys.path.insert(0, str(ROOT))
    from archc.codegen.kernels import render as render_view
    from archc.codegen.kernels.ssd import Ssd

    package = folder / "ssd_pkg"
    package.mkdir(parents=True, exist_ok=True)
    for name, (H, P, G, N, low, high) in SIZES.items():
        view = Ssd(name=name, n_heads=H, d_head=P, n_groups=G, d_state=N, chunk=256, dt_min=low, dt_max=high)
        for file, text in render_view(view).items():
            (package / file).write_text(text)
    for file in Ssd.runtime:
        shutil.copy(ROOT / "archc" / "codegen" / "runtime" / file, package / file)
    (package / "namespace.py").write_text('NAMESPACE = "ssd_check"\n')
    (package / "__init__.py").write_text("")


def load(folder: Path, name: str) -> Any:
    sys.path.insert(0, str(folder.resolve()))
    return importlib.import_module(f"ssd_pkg.{name}")


def draw(name: str, batch: int, length: int, dtype: Any) -> dict[str, Any]:
    import torch

    H, P, G, N = SIZES[name][:4]
    joined = torch.randn(batch, length, H * P + 2 * G * N, device="cuda").to(dtype)
    x, B, C = joined.split((H * P, G * N, G * N), -1)
    return {
        "x": x.unflatten(-1, (H, P)),
        "dt": (torch.randn(batch, length, H, device="cuda") - 2).to(dtype),
        "A_log": torch.rand(H, device="cuda") * 2.77,  # A in [1, 16], as Mamba-2 starts
        "B": B.unflatten(-1, (G, N)),
        "C": C.unflatten(-1, (G, N)),
        "D": torch.randn(H, device="cuda"),
        "dt_bias": torch.rand(H, device="cuda"),
    }


def positions_of(batch: int, length: int) -> Any:
    """Documents of 1 to 300 tokens; the first of each row has begun before."""
    import torch

    rows = []
    for first in range(batch):
        positions = [*range(first, first + 7)]
        while len(positions) < length:
            positions += range(int(torch.randint(1, 300, ())))
        rows.append(positions[:length])
    return torch.tensor(rows, device="cuda")


def error(actual: Any, expected: Any) -> float:
    """||a - b|| / ||b||; infinite where NaN remains."""
    difference, scale = (actual.double() - expected).norm().item(), expected.norm().item()
    return float("inf") if difference != difference else difference / (scale or 1.0)


def poison() -> None:
    """Let new memory start as NaN."""
    import torch

    def poisoned(original: Any, *args: Any, **options: Any) -> Any:
        made = original(*args, **options)
        return made.fill_(float("nan")) if made.is_floating_point() else made

    torch.empty, torch.empty_like = partial(poisoned, torch.empty), partial(poisoned, torch.empty_like)
    torch.Tensor.new_empty = partialmethod(partial(poisoned, torch.Tensor.new_empty))


def check(folder: Path, name: str, kind: str, packed: bool) -> tuple[str, bool]:
    """The worst error of each output and gradient over all repeats, in a process of its own."""
    import torch

    poison()
    torch.manual_seed(0)
    ops, dtype, worst, same = load(folder, name), getattr(torch, kind), {}, True
    forward, backward, step = (getattr(ops, f"{name}_{part}") for part in ("fwd", "bwd", "step"))
    for repeat in range(REPEATS):
        length = LENGTHS[repeat % len(LENGTHS)]
        inputs = draw(name, 2, length, dtype)
        wide = {key: value.double() for key, value in inputs.items()}
        H, P, _, N = SIZES[name][:4]
        positions = positions_of(2, length) if packed else None
        initial = torch.randn(2, H, P, N, device="cuda") if packed else None
        y, final, states = forward(*inputs.values(), positions, initial)
        exact = forward(*wide.values(), positions, None if initial is None else initial.double())
        grad_y, grad_final = torch.randn_like(y.float()).to(dtype), torch.randn_like(final)
        grads = backward(grad_y, grad_final, *inputs.values(), positions, states)
        again = backward(grad_y, grad_final, *inputs.values(), positions, states)
        wanted = backward(grad_y.double(), grad_final.double(), *wide.values(), positions, exact[2])
        same &= all(map(torch.equal, grads, again))
        found = {"y": (y, exact[0]), "final": (final, exact[1])}
        found |= {f"d{key}": pair for key, *pair in zip([*inputs, "initial"], grads, wanted, strict=True)}
        if length == 1 and initial is not None:
            state = initial.clone()
            found |= {"step": (step(*inputs.values(), positions, state), exact[0]), "state": (state, exact[1])}
        for key, (actual, expected) in found.items():
            worst[key] = max(worst.get(key, 0.0), error(actual, expected))
    right = same and max(worst.values()) <= TOLERANCE[kind]
    values = " ".join(f"{key}={value:.0e}" for key, value in worst.items())
    return f"{'ok  ' if right else 'FAIL'} {name} {kind} packed={packed:d} same={same:d} {values}", right


def check_all(folder: Path) -> list[tuple[str, bool]]:
    """All checks side by side: they are mostly compilation."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(14, os.cpu_count() or 1), mp_context=context) as pool:
        found = {pool.submit(check, folder, *case): case for case in CHECKS}
        problems = {done: done.exception() for done in as_completed(found)}
    return [
        done.result() if problem is None else (f"FAIL {found[done]}: {problem!r:.300}", False)
        for done, problem in problems.items()
    ]


def floors(name: str, batch: int, length: int) -> tuple[float, float]:
    """Milliseconds that the bytes of inputs and outputs, or causal products by chunks of 128, take at the least."""
    H, P, G, N = SIZES[name][:4]
    tokens = batch * length
    values, keys = tokens * H * P * 2, tokens * G * N * 2
    products = 2 * tokens * (64 * (G * N + H * P) + 2 * H * P * N)
    forward = max((2 * values + 2 * keys) / COPY_BANDWIDTH, products / MATMUL_RATE)
    both = max((6 * values + 6 * keys) / COPY_BANDWIDTH, 3.5 * products / MATMUL_RATE)
    return forward * 1e3, both * 1e3


def median_ms(run: Any) -> float:
    from triton.testing import do_bench

    return float(do_bench(run, warmup=5, rep=40, return_mode="median"))


def peak_mb(run: Any) -> float:
    import torch

    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() / 1e6


def timings(folder: Path, say: Any) -> None:
    import torch

    try:
        from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined as peer
    except ImportError:
        peer = None
        say("mamba_ssm is not here: no side by side")
    for name in TIMED:
        ops, inputs = load(folder, name), draw(name, 4, 4096, torch.bfloat16)
        leaves = {key: value.detach().requires_grad_() for key, value in inputs.items()}
        grad = torch.randn_like(inputs["x"])

        def ours(given: Any, ops: Any = ops, name: str = name) -> Any:
            return getattr(ops, name)(**given)

        def theirs(given: Any) -> Any:
            x, dt, A_log, B, C, D, bias = given.values()
            return peer(x, dt, -torch.exp(A_log), B, C, 256, D=D, dt_bias=bias, dt_softplus=True)

        forms = {"ours": ours} | ({"mamba_ssm": theirs} if peer else {})
        found: dict[str, list[tuple[float, float]]] = {form: [] for form in forms}

        def both(function: Any, leaves: Any = leaves, grad: Any = grad) -> None:
            torch.autograd.grad(function(leaves), list(leaves.values()), grad)

        for _ in range(5):
            for form, function in forms.items():
                with torch.no_grad():
                    first = median_ms(lambda f=function, i=inputs: f(i))
                found[form].append((first, median_ms(lambda f=function: both(f))))
        floor = floors(name, 4, 4096)
        say(f"{name} B4 L4096 {SIZES[name][:4]}, floors {floor[0]:.3f} {floor[1]:.3f} ms")
        medians = {form: [statistics.median(part) for part in zip(*rows, strict=True)] for form, rows in found.items()}
        for form, function in forms.items():
            fwd, all_ = medians[form]
            ratios = f"{medians['mamba_ssm'][0] / fwd:.2f}x {medians['mamba_ssm'][1] / all_:.2f}x" if peer else ""
            peak = peak_mb(lambda f=function: both(f))
            say(f"  {form:10s} fwd {fwd:.3f} ms ({fwd / floor[0]:.1f} floors), both {all_:.3f} ms "
                f"({all_ / floor[1]:.1f} floors), peak {peak:.0f} MB  {ratios}")  # fmt: skip
    long_sequences(folder, say)
    steps(folder, say)


def long_sequences(folder: Path, say: Any) -> None:
    """Time a token, and the end of 131,072 tokens (more than 2^31 elements) against that end alone."""
    import torch

    name, tail = "ssd_h80", 1000
    ops, grads = load(folder, name), {}
    for length in (4096, 131_072):
        inputs = draw(name, 4, length, torch.bfloat16)
        y, _, states = ops.ssd_h80_fwd(*inputs.values(), None, None)
        forward = median_ms(lambda i=inputs: ops.ssd_h80_fwd(*i.values(), None, None))
        backward = median_ms(lambda i=inputs, y=y, s=states: ops.ssd_h80_bwd(y, None, *i.values(), None, s))
        say(f"{name} B4 L{length}: {(forward + backward) / length * 1e3:.4f} us a token of each sequence, both passes")
        grads[length] = (forward + backward) / length
    say(f"  a token of the longer takes {grads[131_072] / grads[4096]:.3f} times as long")
    before = {key: value[:, :-tail] if value.dim() > 2 else value for key, value in inputs.items()}
    last = {key: value[:, -tail:] if value.dim() > 2 else value for key, value in inputs.items()}
    _, state, _ = ops.ssd_h80_fwd(*before.values(), None, None)
    end, _, states_end = ops.ssd_h80_fwd(*last.values(), None, state)
    whole = ops.ssd_h80_bwd(y, None, *inputs.values(), None, states)
    alone = ops.ssd_h80_bwd(y[:, -tail:], None, *last.values(), None, states_end)
    found = {"y": error(y[:, -tail:], end.double())}
    found |= {
        f"d{key}": error(a[:, -tail:], b.double())
        for key, a, b in zip(inputs, whole, alone, strict=False)
        if a.dim() > 2
    }
    say(
        f"{'ok  ' if max(found.values()) < 6e-3 else 'FAIL'} far offsets "
        + " ".join(f"{k}={v:.0e}" for k, v in found.items())
    )


def steps(folder: Path, say: Any) -> None:
    """One token of 256 sequences, the state in float32 and in bfloat16."""
    import torch

    try:
        from mamba_ssm.ops.triton.selective_state_update import selective_state_update as peer
    except ImportError:
        peer = None
    ops, token = load(folder, "ssd_h80"), draw("ssd_h80", 256, 1, torch.bfloat16)
    x, dt, A_log, B, C, D, bias = token.values()
    for dtype in (torch.float32, torch.bfloat16):
        state = torch.randn(256, 80, 64, 128, device="cuda").to(dtype)
        found = [median_ms(lambda s=state: ops.ssd_h80_step(*token.values(), None, s))]
        if peer:
            wide = (dt[:, 0, :, None].expand(-1, -1, 64), -A_log.exp()[:, None, None].expand(-1, 64, 128))
            rest = {"D": D[:, None].expand(-1, 64), "dt_bias": bias[:, None].expand(-1, 64), "dt_softplus": True}
            found.append(median_ms(lambda s=state, w=wide, r=rest: peer(s, x[:, 0], *w, B[:, 0], C[:, 0], **r)))
        floor = 2 * state.numel() * state.element_size() / COPY_BANDWIDTH * 1e3
        say(f"step B256, state {str(dtype)[6:]}: {found[0]:.3f} ms, {found[0] / floor:.2f} floors"
            + (f"; mamba_ssm {found[1]:.3f} ms, {found[1] / found[0]:.2f}x" if peer else ""))  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="holds ssd_pkg")
    parser.add_argument("--render", action="store_true", help="write ssd_pkg and stop")
    parser.add_argument("--only", choices=("checks", "timings"), help="run this part alone")
    arguments = parser.parse_args()
    if arguments.render:
        render(arguments.folder)
        return 0
    import torch
    import triton

    log, right = (Path(os.environ.get("OUT", arguments.folder)) / "check_ssd.log").open("w"), True

    def say(line: str) -> None:
        nonlocal right
        right &= not line.startswith("FAIL")
        for stream in (sys.stdout, log):
            print(line, file=stream, flush=True)

    say(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, triton {triton.__version__}")
    if arguments.only != "timings":
        for line, _ in check_all(arguments.folder):
            say(line)
    if arguments.only != "checks":
        timings(arguments.folder, say)
    say("all checks passed" if right else "failures")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
