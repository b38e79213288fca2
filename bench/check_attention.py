"""Attention's CUDA paths and the experts' grouped products against float64, on the machine's GPU.

    python -m bench.check_attention            # everything, exit status 1 if a row fails
    python -m bench.check_attention --cpu      # the same checks on the CPU, to try the script itself

A row is the worst error max|a - b| / max|b| of the output and of each gradient over its cases.
"""

import argparse
import itertools
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from archc.codegen.runtime.attention import AttentionState, attention, forward_flops
from archc.codegen.runtime.experts import combine, dispatch, expert_linear
from archc.codegen.runtime.routing import route

# float32: sums of up to 1000 terms. float16 and bfloat16: inputs are exact, probabilities, outputs and the gradients'
# inner products are rounded to 11 and 8 bits, and gradients cancel.
TOLERANCE = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}
FLOOR = 4.0  # gradients of q and k vanish where a token sees itself alone; the terms that cancel are about this size
LENGTHS = [1, 63, 64, 65, 1000]
HEADS = [(4, 4, 64, 64), (8, 2, 128, 128), (6, 3, 40, 24), (4, 1, 36, 36), (2, 2, 256, 256)]  # H, G, K, V
SCALE = 0.11
# tokens, experts, d_model, d_ff: many experts without rows, and widths that the grouped kernel does not take
MIXTURES = [(1, 8, 64, 32), (1, 16, 256, 512), (333, 16, 256, 512), (64, 100, 64, 72), (50, 4, 36, 20)]

failures = 0


def report(dtype: torch.dtype, what: str, errors: list[float], tolerance: float | None = None) -> None:
    global failures
    passed = max(errors) <= (TOLERANCE[dtype] if tolerance is None else tolerance)
    failures += not passed
    cells = "  ".join(f"{error:8.1e}" for error in errors)
    print(f"{str(dtype).removeprefix('torch.'):9} {what:44} {cells:40} {'ok' if passed else 'FAILED'}", flush=True)


def error(got: Tensor, want: Tensor, floor: float = 0.0) -> float:
    """max|got - want| / max|want|; infinite for anything that is not a number."""
    difference = (got.double() - want.double()).abs().max().item()
    return difference / max(want.abs().max().item(), floor) if math.isfinite(difference) else math.inf


def reference(q: Tensor, k: Tensor, v: Tensor, window: int | None, positions: Tensor | None) -> Tensor:
    repeats = q.shape[2] // k.shape[2]
    k, v = k.repeat_interleave(repeats, 2), v.repeat_interleave(repeats, 2)
    T = q.shape[1]
    i = torch.arange(T, device=q.device)[:, None]
    reach = i[None] if positions is None else positions[..., None]
    reach = reach if window is None else reach.clamp(max=window - 1)
    hidden = (i.t() > i) | (i.t() < i - reach)
    scores = (q.transpose(1, 2) @ k.permute(0, 2, 3, 1)) * SCALE
    return (scores.masked_fill(hidden[:, None], -torch.inf).softmax(-1) @ v.transpose(1, 2)).transpose(1, 2)


def draw(B: int, T: int, heads: tuple[int, ...], dtype: torch.dtype, device: str) -> list[Tensor]:
    """Slices of one fused projection, as a model makes them."""
    H, G, K, V = heads
    torch.manual_seed(T + K)
    sizes = [H * K, G * K, G * V]
    parts = torch.randn(B, T, sum(sizes), device=device).to(dtype).split(sizes, -1)
    return [part.unflatten(-1, (-1, width)) for part, width in zip(parts, (K, K, V), strict=True)]


def packed(B: int, T: int, device: str) -> Tensor:
    """Documents of 1, 2, 70 and then 129 tokens each, shifted from row to row."""
    starts = {0, 1, 3, *range(73, T, 129)}
    rows = []
    for b in range(B):
        position, row = 0, []
        for t in range(T):
            position = 0 if t in starts and (t or not b) and (t + b) % 5 != 4 else position
            row.append(position)
            position += 1
        rows.append(row)
    return torch.tensor(rows, device=device)


def check_training(dtype: torch.dtype, device: str) -> None:
    for window, is_packed in itertools.product((None, 1, 17, 64), (False, True)):
        worst = [0.0] * 4
        for T, heads in itertools.product(LENGTHS, HEADS):
            positions = packed(2, T, device) if is_packed else None
            leaves = [x.requires_grad_() for x in draw(2, T, heads, dtype, device)]
            exact = [x.detach().double().requires_grad_() for x in leaves]
            y = attention(*leaves, scale=SCALE, window=window, positions=positions)
            want = reference(*exact, window, positions)
            grad = torch.randn(y.shape, device=device).to(dtype)
            pairs = [(y, want)]
            exact_grads = torch.autograd.grad(want, exact, grad.double())
            pairs += zip(torch.autograd.grad(y, leaves, grad), exact_grads, strict=True)
            worst = [max(old, error(*pair, FLOOR)) for old, pair in zip(worst, pairs, strict=True)]
        report(dtype, f"out dq dk dv, window {window}{', packed' if is_packed else ''}", worst)


def chunks_of(T: int) -> Iterator[list[int]]:
    yield [1] * T
    yield [T - 20] + [1] * 20
    yield [30, T - 50, 1, 19]


def check_cache(dtype: torch.dtype, device: str) -> None:
    T = 150
    for window, kind in itertools.product((None, 17, 64), ("", ", numbered", ", packed")):
        worst = 0.0
        for heads in HEADS:
            q, k, v = draw(2, T, heads, dtype, device)
            numbered = torch.arange(T, device=device).expand(2, T)
            positions = {"": None, ", numbered": numbered, ", packed": packed(2, T, device)}[kind]
            want = reference(q.double(), k.double(), v.double(), window, positions)
            for chunks in chunks_of(T):
                caches = [x.new_zeros(2, window or 200, *x.shape[2:]) for x in (k, v)]
                state = AttentionState(*caches, torch.zeros((), dtype=torch.int64, device=device))
                out, start = [], 0
                for n in chunks:
                    now = slice(start, start + n)
                    at = None if positions is None else positions[:, now]
                    qkv = (q[:, now], k[:, now], v[:, now])
                    with forbid_waiting(n == 1, device):
                        part = attention(*qkv, scale=SCALE, window=window, positions=at, state=state)
                        state.length.add_(n)
                    out.append(part)
                    start += n
                worst = max(worst, error(torch.cat(out, 1), want))
        report(dtype, f"steps and chunks, window {window}{kind}", [worst])


@contextmanager
def forbid_waiting(active: bool, device: str) -> Iterator[None]:
    """Make anything that waits for the GPU an error."""
    if active and device == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("default")


def check_compiled(dtype: torch.dtype, device: str) -> None:
    def run(q: Tensor, k: Tensor, v: Tensor, positions: Tensor | None) -> Tensor:
        return attention(q * 1.5, k, v, scale=SCALE, window=64, positions=positions).square()

    compiled = torch.compile(run, fullgraph=True)
    for positions in (None, packed(2, 200, device)):
        leaves = [x.requires_grad_() for x in draw(2, 200, HEADS[1], dtype, device)]
        results = []
        for fn in (run, compiled):
            y = fn(*leaves, positions)
            results.append([y, *torch.autograd.grad(y.float().sum(), leaves)])
        errors = [error(got, want) for want, got in zip(*results, strict=True)]
        report(dtype, f"compiled = eager{', packed' if positions is not None else ''}", errors)


def mixture(logits: Tensor, h: Tensor, gate: Tensor, up: Tensor, down: Tensor, dy: Tensor) -> list[Tensor]:
    """The output of two experts a token, and the gradients."""
    weights, experts = route(logits, 2)
    rows, plan = dispatch(h, experts, logits.shape[-1])
    rows = F.silu(expert_linear(rows, gate, plan)) * expert_linear(rows, up, plan)
    y = combine(expert_linear(rows, down, plan), weights, plan)
    return [y, *torch.autograd.grad(y, (h, gate, up, down), dy)]


def check_experts(dtype: torch.dtype, device: str) -> None:
    for tokens, n_experts, d, d_ff in MIXTURES:
        torch.manual_seed(tokens)
        shapes = [(1, tokens, d), (n_experts, d_ff, d), (n_experts, d_ff, d), (n_experts, d, d_ff)]
        leaves = [(torch.randn(s, device=device) * s[-1] ** -0.5).to(dtype).requires_grad_() for s in shapes]
        exact = [x.detach().double().requires_grad_() for x in leaves]
        logits = torch.randn(1, tokens, n_experts, device=device)
        logits[..., 0] = -100.0  # the first expert gets nothing
        grad = torch.randn(1, tokens, d, device=device).to(dtype)
        mixture(logits, *leaves, grad)  # warm-up: whatever is compiled or looked up once may wait
        with forbid_waiting(dtype == torch.bfloat16 and d % 8 == d_ff % 8 == 0, device):
            got = mixture(logits, *leaves, grad)
        worst = [error(*pair) for pair in zip(got, mixture(logits, *exact, grad.double()), strict=True)]
        report(dtype, f"experts: {tokens} tokens, {n_experts} of {d}x{d_ff}", worst)


def measure(run: Callable[[], object]) -> float:
    """Seconds, the median of 10."""
    for _ in range(3):
        run()
    times = []
    for _ in range(10):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        run()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    return sorted(times)[5]


def time_attention() -> None:
    """Ours beside PyTorch's two kernels, in exact causal TFLOP/s."""
    B, T, H, G, K = 4, 4096, 32, 8, 128
    q, k, v = (x.requires_grad_() for x in draw(B, T, (H, G, K, K), torch.bfloat16, "cuda"))
    grad = torch.randn(B, T, H, K, device="cuda").bfloat16()
    work = forward_flops(B, T, H, K, K, None)

    def sdpa() -> Tensor:
        heads_first = [x.transpose(1, 2) for x in (q, k, v)]
        return F.scaled_dot_product_attention(*heads_first, is_causal=True, scale=SCALE, enable_gqa=True).transpose(
            1, 2
        )

    def ours() -> Tensor:
        return attention(q, k, v, scale=SCALE)

    documents = packed(B, T, "cuda")
    runs: list[tuple[str, Callable[[], Tensor], SDPBackend | None]] = [
        ("ours", ours, None),
        ("ours, window 1024 (of its own work)", lambda: attention(q, k, v, scale=SCALE, window=1024), None),
        ("ours, packed (counted as one document)", lambda: attention(q, k, v, scale=SCALE, positions=documents), None),
        ("sdpa, flash", sdpa, SDPBackend.FLASH_ATTENTION),
        ("sdpa, cudnn", sdpa, SDPBackend.CUDNN_ATTENTION),
    ]
    print(f"\nbfloat16, B {B}, T {T}, {H}/{G} heads of {K}: TFLOP/s forward, forward and backward")
    for name, run, backend in runs:
        done = forward_flops(B, T, H, K, K, 1024) if "window" in name else work
        try:
            with sdpa_kernel(backend) if backend else nullcontext():
                forward = measure(run)
                both = measure(lambda: run().backward(grad))  # noqa: B023
            print(f"{name:44} {done / forward / 1e12:8.0f} {3.5 * done / both / 1e12:8.0f}")
        except RuntimeError as cause:
            print(f"{name:44} not available: {str(cause).splitlines()[0]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu", action="store_true")
    device = "cpu" if parser.parse_args().cpu else "cuda"
    torch.set_float32_matmul_precision("highest")
    print(f"torch {torch.__version__}, {'CPU' if device == 'cpu' else torch.cuda.get_device_name()}")
    for dtype in TOLERANCE:
        check_training(dtype, device)
        check_cache(dtype, device)
        check_compiled(dtype, device)
        check_experts(dtype, device)
    if device == "cuda":
        time_attention()
    print(f"\n{failures} rows failed" if failures else "\nall rows ok")
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
