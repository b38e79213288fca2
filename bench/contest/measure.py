"""How a contest is measured: rounds in turn, the median of each contestant, memory, and the ceilings of the device."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import torch
import triton
import triton.language as tl

Run = Callable[[], object]
FLUSH_BYTES = 256 << 20  # several times the second-level cache
SPECIAL_ROUNDS = tl.constexpr(512)
CYCLES_AHEAD = 1_000_000  # that the host has for queueing a call: half a millisecond


@dataclass(frozen=True)
class Ceilings:
    """What the device gives, measured in this run."""

    bandwidth: float  # bytes a second, read and written, of a copy
    special: float  # base-2 exponentials a second
    matmul: float  # FLOP/s of a bf16 product of 8192 x 8192 matrices


@dataclass
class Contest:
    """One row while it is measured. `bytes`, `special` and `flops` are the least that the work takes."""

    ours: Run
    peers: dict[str, Run | str]  # a function, or why there is none
    bytes: float = 0.0
    special: float = 0.0
    flops: float = 0.0
    calls: int = 1  # how often the function does the work
    graph: bool = False  # replay a CUDA graph: for what is shorter than its launch

    def floor(self, ceilings: Ceilings) -> float:
        """Milliseconds that no implementation goes below."""
        times = (self.bytes / ceilings.bandwidth, self.special / ceilings.special, self.flops / ceilings.matmul)
        return max(times) * 1e3


@dataclass(frozen=True)
class Row:
    """A line of the table: what is asked for, and the function that prepares its contest (on the GPU)."""

    kernel: str
    shape: str
    make: Callable[[Any], Contest]  # from the package of our kernels
    faster: float | None = None  # than the best peer, at least
    floors: float | None = None  # times the floor, at most
    memory: float | None = None  # times the peak of the best peer, at most


@dataclass
class Measured:
    """What a row came to: milliseconds and bytes by contestant, `ours` first."""

    row: Row
    floor: float
    times: dict[str, float] = field(default_factory=dict)
    peaks: dict[str, int] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


def peer(module: str, attribute: str) -> Any:
    """`module.attribute`, or a sentence that says why it is not there."""
    try:
        return getattr(import_module(module), attribute)
    except ImportError as problem:
        return f"peer not installed ({problem})"


def call(function: Any, run: Run) -> Run | str:
    """`run` where its peer is there."""
    return function if isinstance(function, str) else run


def both(leaves: list[torch.Tensor], forward: Callable[[], torch.Tensor], grad: torch.Tensor) -> Run:
    """Forward and backward."""
    return lambda: torch.autograd.grad(forward(), leaves, grad)


def backward(leaves: list[torch.Tensor], forward: Callable[[], torch.Tensor], grad: torch.Tensor) -> Run:
    """Backward alone, again and again through one graph."""
    y = forward()
    return lambda: torch.autograd.grad(y, leaves, grad, retain_graph=True)


def captured(run: Run) -> Run:
    """A function that replays `run`."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        run()
        run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        run()
    return graph.replay


def measure(row: Row, package: Any, ceilings: Ceilings, rounds: int) -> Measured:
    """Measure a row: every contestant once a round, in turn, with a cold second-level cache."""
    contest = row.make(package)
    runs: dict[str, Run] = {"ours": contest.ours}
    runs |= {name: run for name, run in contest.peers.items() if not isinstance(run, str)}
    measured = Measured(row, contest.floor(ceilings))
    measured.missing = {name: run for name, run in contest.peers.items() if isinstance(run, str)}
    for name, run in runs.items():
        for _ in range(2):  # compilation, autotuning
            run()
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        torch.cuda.synchronize()
        measured.peaks[name] = torch.cuda.max_memory_allocated() - before
    if contest.graph:
        runs = {name: captured(run) for name, run in runs.items()}
    cold = torch.empty(FLUSH_BYTES, dtype=torch.uint8, device="cuda")
    medians: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            medians[name].append(median(run, cold) / contest.calls)
    measured.times = {name: statistics.median(times) for name, times in medians.items()}
    return measured


def median(run: Run, cold: torch.Tensor, budget: float = 25.0, most: int = 25) -> float:
    """Milliseconds, the median of a few calls: some `budget` of them.

    The device is kept waiting until all calls are queued, so that it is the device's time and not the host's.
    """
    probe = _timed(run, cold, 1)
    calls = min(most, max(3, int(budget / probe[0])))
    return statistics.median(_timed(run, cold, calls))


def _timed(run: Run, cold: torch.Tensor, calls: int) -> list[float]:
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(calls)]
    torch.cuda.synchronize()
    torch.cuda._sleep(calls * CYCLES_AHEAD)
    for start, end in events:
        cold.zero_()
        start.record()
        run()
        end.record()
    torch.cuda.synchronize()
    return [start.elapsed_time(end) for start, end in events]


@triton.jit
def _special_kernel(x_ptr):
    offsets = tl.program_id(0) * 2048 + tl.arange(0, 2048)
    x = tl.load(x_ptr + offsets)
    for _ in range(SPECIAL_ROUNDS):
        x = tl.exp2(-x)
    tl.store(x_ptr + offsets, x)


def ceilings() -> Ceilings:
    """Measure the device's."""
    cold = torch.empty(FLUSH_BYTES, dtype=torch.uint8, device="cuda")
    source, target = (torch.randn(1 << 28, device="cuda") for _ in range(2))
    x = torch.rand(132 * 16 * 2048, device="cuda")
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    runs: tuple[Run, ...] = (
        lambda: target.copy_(source),
        lambda: _special_kernel[(x.numel() // 2048,)](x, num_warps=8),
        lambda: a @ b,
    )
    copy, special, matmul = (min(median(run, cold) for _ in range(3)) * 1e-3 for run in runs)
    return Ceilings(2 * source.nbytes / copy, x.numel() * SPECIAL_ROUNDS.value / special, 2 * 8192**3 / matmul)
