"""The Triton kernels on a GPU: right at every dtype against the float64 reference, and how fast.

    python bench/check_kernels.py --render build      # anywhere: writes build/kernels_pkg (needs archc and jinja2)
    python bench/check_kernels.py build               # on the GPU: needs torch and triton alone
    python bench/check_kernels.py build --only lanes  # one part: lanes, mixers, pointwise, far or timings (repeatable)

Outputs start as NaN, activations are slices of wider tensors, and every backward pass runs twice and must agree to the
last bit: but for the gradients of B and C of the scan's lane programs, which do so with torch's deterministic
algorithms, and then everything is checked a second time. The report goes to standard output and to `check_kernels.log`
in $OUT (default: the folder given). The exit status says whether every check passed.
"""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import os
import shutil
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ALL = {"gate": True, "skip": True, "dt_bias": True, "dt_softplus": True}
NONE = dict.fromkeys(ALL, False)
PLAIN = 7  # channels for which there are no lane programs; the plain kernels take any number
LANE_CHANNELS = 64
SCANS: dict[str, dict[str, Any]] = {
    "selective_scan": {"d_inner": PLAIN, "d_state": 16, **ALL},
    "selective_scan_bare": {"d_inner": PLAIN, "d_state": 16, **NONE},
    "selective_scan_narrow": {"d_inner": PLAIN, "d_state": 5, **ALL, "skip": False},
    "selective_scan_wide": {"d_inner": PLAIN, "d_state": 64, **ALL},
    "selective_scan_n16": {"d_inner": LANE_CHANNELS, "d_state": 16, **ALL},
    "selective_scan_n16_bare": {"d_inner": LANE_CHANNELS, "d_state": 16, **NONE},
    "selective_scan_n16_gate": {"d_inner": LANE_CHANNELS, "d_state": 16, **NONE, "gate": True, "dt_softplus": True},
    "selective_scan_n16_skip": {"d_inner": LANE_CHANNELS, "d_state": 16, **NONE, "skip": True, "dt_bias": True},
    "selective_scan_d8192": {"d_inner": 8192, "d_state": 16, **ALL},
    "selective_scan_d5120": {"d_inner": 5120, "d_state": 16, **ALL},
}
# What mamba_ssm's CUDA kernels need, forward and then both passes together, in ms on one H200 (measured once).
MAMBA_SSM = {(4, 4096, 8192): (2.290, 11.37), (8, 2048, 8192): (2.304, 11.30)}
MAMBA_SSM |= {(1, 4096, 8192): (0.611, 3.10), (4, 4096, 5120): (1.443, 7.17)}
CONVS: dict[str, dict[str, Any]] = {
    "causal_conv1d": {"width": 4, "bias": True, "silu": True},
    "causal_conv1d_plain": {"width": 3, "bias": False, "silu": False},
}
# max|a - b| / max|b|: float32 sums of a thousand terms; half an ulp of the largest element and a little more below.
TOLERANCE = {"float32": 2e-5, "bfloat16": 8e-3, "float16": 1.5e-3}
# Length, channels, packed documents?, state?
CASES = [
    (1, 5, True, True),
    (63, 97, True, True),
    (64, 96, False, False),
    (65, 33, True, False),
    (1000, 64, True, True),
]
# Variant, dtype, length, packed documents?, state?; each with every plan of the tile table.
LANE_CASES = [
    *(("selective_scan_n16", kind, *case) for kind in TOLERANCE for case in ((65, True, True), (1000, False, False))),
    *(("selective_scan_n16", "bfloat16", *case) for case in ((1, True, True), (63, True, False), (64, False, True))),
    *(
        (f"selective_scan_n16_{options}", kind, 63, True, True)
        for options in ("bare", "gate", "skip")
        for kind in ("float32", "bfloat16")
    ),
]
COPY_BANDWIDTH = 4.28e12  # bytes a second, read and written, of a device copy on one H200 (measured)
SECONDS = 200  # after which what remains is skipped, and said to be


def render(folder: Path) -> None:
    """Write the package that the GPU machine runs."""
    sys.path.insert(0, str(ROOT))
    from archc.codegen.kernels import Kernel
    from archc.codegen.kernels import render as render_view
    from archc.codegen.kernels.causal_conv1d import CausalConv1d
    from archc.codegen.kernels.rms_norm import RmsNorm
    from archc.codegen.kernels.selective_scan import SelectiveScan
    from archc.codegen.kernels.swiglu import Swiglu

    package = folder / "kernels_pkg"
    package.mkdir(parents=True, exist_ok=True)
    zero = {"flops_forward": "0", "flops_backward": "0"}
    views: list[Kernel] = [SelectiveScan(name=name, **options, **zero) for name, options in SCANS.items()]
    views += [CausalConv1d(name=name, **options, **zero) for name, options in CONVS.items()]
    views += [RmsNorm(), Swiglu()]
    for view in views:
        for file, text in render_view(view).items():
            (package / file).write_text(text)
    runtime = {file for view in views for file in view.runtime}
    for file in (*sorted(runtime), "reference.py", "namespace.py"):
        shutil.copy(ROOT / "archc" / "codegen" / "runtime" / file, package / file)
    (package / "__init__.py").write_text("")
    print(f"{package}: {len(list(package.glob('*.py')))} files")


class Report:
    """Lines to the screen and to a file at once, and what failed. Without a path the lines are only kept."""

    def __init__(self, path: Path | None) -> None:
        self.streams = [sys.stdout, path.open("w")] if path else []
        self.lines: list[str] = []
        self.start = time.monotonic()
        self.failures: list[str] = []
        self.table: list[str] = []
        self.worst: dict[str, float] = {}

    def line(self, text: str) -> None:
        self.lines.append(text)
        for stream in self.streams:
            print(text, file=stream, flush=True)

    def merge(self, lines: list[str], failures: list[str], worst: dict[str, float]) -> None:
        """Take over what another report has found."""
        for line in lines:
            self.line(line)
        self.failures += failures
        for key, value in worst.items():
            self.worst[key] = max(self.worst.get(key, 0.0), value)

    def late(self, what: str) -> bool:
        if time.monotonic() - self.start < SECONDS:
            return False
        self.line(f"skipped for time: {what}")
        return True

    def errors(self, label: str, dtype: str, errors: dict[str, float]) -> None:
        wrong = {name: value for name, value in errors.items() if not value <= TOLERANCE[dtype]}
        self.line(f"{'FAIL' if wrong else 'ok  '} {label} " + " ".join(f"{n}={v:.0e}" for n, v in errors.items()))
        key = f"{label.split()[0]} {dtype}"
        self.worst[key] = max(self.worst.get(key, 0.0), *errors.values())
        if wrong:
            self.failures.append(f"{label}: {wrong}")

    def timed(self, label: str, run: Callable[[], object], n_bytes: float) -> float:
        from triton.testing import do_bench

        try:
            ms = do_bench(run, warmup=20, rep=100, return_mode="median")
        except Exception as problem:  # one kernel that cannot launch must not hide the others
            self.failures.append(f"timing {label}: {type(problem).__name__}: {str(problem)[:200]}")
            self.line(f"FAIL timing {label}: {problem}")
            return float("nan")
        floor = n_bytes / COPY_BANDWIDTH * 1e3
        row = f"{label:58s} {ms:8.3f} ms  {n_bytes / ms / 1e6:6.0f} GB/s  {ms / floor:5.2f}x the memory floor"
        self.table.append(row)
        self.line(row)
        return float(ms)


def error(actual: Any, expected: Any) -> float:
    """max|a - b| / max|b|; infinite where NaN remains."""
    if actual.numel() == 0:
        return 0.0
    difference = (actual.double() - expected.double()).abs().max().item()
    return float("inf") if difference != difference else difference / (expected.double().abs().max().item() or 1.0)


def poisoned(original: Callable[..., Any]) -> Callable[..., Any]:
    """An allocation whose memory starts as NaN."""

    def allocate(*args: Any, **options: Any) -> Any:
        made = original(*args, **options)
        return made.fill_(float("nan")) if made.is_floating_point() else made

    return allocate


def positions_of(batch: int, length: int) -> Any:
    """Documents of 1 to 20 tokens; the first of each row has begun before."""
    import torch

    rows = []
    for seed in range(batch):
        generator = torch.Generator().manual_seed(seed)
        positions = [*range(3, 3 + seed % 5)]
        while len(positions) < length:
            positions += range(int(torch.randint(1, 20, (), generator=generator)))
        rows.append(positions[:length])
    return torch.tensor(rows, device="cuda")


def scan_inputs(name: str, batch: int, length: int, d_inner: int, dtype: Any) -> dict[str, Any]:
    import torch

    options = SCANS[name]
    n = options["d_state"]
    random = partial(torch.randn, device="cuda")
    x, z = random(batch, length, 2 * d_inner).to(dtype).split(d_inner, -1)
    _, B, C = random(batch, length, 16 + 2 * n).to(dtype).split((16, n, n), -1)
    dt = random(batch, length, d_inner).to(dtype)
    inputs = {"x": x, "dt": 2 * dt - 2 if options["dt_softplus"] else dt.abs() * 0.3}
    inputs |= {"A_log": torch.rand(d_inner, n, device="cuda") * 2, "B": B, "C": C}
    inputs |= {"D": random(d_inner)} if options["skip"] else {}
    inputs |= {"z": z} if options["gate"] else {}
    inputs |= {"dt_bias": torch.rand(d_inner, device="cuda") * 0.5} if options["dt_bias"] else {}
    return inputs


def conv_inputs(name: str, batch: int, length: int, channels: int, dtype: Any) -> dict[str, Any]:
    import torch

    options = CONVS[name]
    x = torch.randn(batch, length, 2 * channels, device="cuda").to(dtype)[..., :channels]
    inputs = {"x": x, "weight": torch.randn(channels, 1, options["width"], device="cuda").to(dtype)}
    return inputs | ({"bias": torch.randn(channels, device="cuda").to(dtype)} if options["bias"] else {})


def gradients(run: Callable[..., Any], inputs: dict[str, Any]) -> tuple[list[Any], list[Any]]:
    import torch

    leaves = {
        key: value.detach().requires_grad_() if value is not None and value.is_floating_point() else value
        for key, value in inputs.items()
    }
    returned = run(**leaves)
    outputs = [returned] if isinstance(returned, torch.Tensor) else list(returned)
    generator = torch.Generator("cuda").manual_seed(1)
    grads = [
        torch.randn(output.shape, generator=generator, device="cuda", dtype=torch.float32).bfloat16().to(output.dtype)
        for output in outputs
    ]
    wanted = [leaf for leaf in leaves.values() if leaf is not None and leaf.requires_grad]
    return [output.detach() for output in outputs], list(torch.autograd.grad(outputs, wanted, grads))


def check(
    report: Report, label: str, run: Any, oracle: Any, inputs: dict[str, Any], moving: tuple[str, ...] = ()
) -> None:
    """Outputs and gradients against the oracle, and a second run against the first but for the `moving` gradients."""
    import torch

    dtype = str(next(iter(inputs.values())).dtype).removeprefix("torch.")
    try:
        outputs, grads = gradients(run, inputs)
        _, again = gradients(run, inputs)
    except Exception as problem:  # a kernel that cannot launch must not hide the others
        report.failures.append(f"{label} {dtype}: {type(problem).__name__}: {str(problem)[:300]}")
        report.line(f"FAIL {label} {dtype}: {type(problem).__name__}: {str(problem)[:1000]}")
        return
    wide = {k: v.double() if v is not None and v.is_floating_point() else v for k, v in inputs.items()}
    expected, exact = gradients(oracle, wide)
    names = [f"out{i}" for i in range(len(outputs))]
    names += [f"d{key}" for key, value in inputs.items() if value is not None and value.is_floating_point()]
    errors = {n: error(a, b) for n, a, b in zip(names, outputs + grads, expected + exact, strict=True)}
    report.errors(f"{label} {dtype}", dtype, errors)
    pairs = zip(names[len(outputs) :], grads, again, strict=True)
    if not all(torch.equal(a, b) for name, a, b in pairs if name not in moving):
        report.failures.append(f"{label} {dtype}: two backward passes differ")
        report.line(f"FAIL {label} {dtype}: two backward passes differ")


def check_mixers(report: Report, package: Any) -> None:
    import torch

    plan = [
        (name, dtype, case) for name in ("selective_scan", "causal_conv1d") for dtype in TOLERANCE for case in CASES
    ]
    plan = [entry for entry in plan if entry[1] != "float16" or entry[2][0] in (65, 1000)]
    others = ("selective_scan_wide", "selective_scan_bare", "selective_scan_narrow", "causal_conv1d_plain")
    plan += [(name, dtype, CASES[1]) for name in others for dtype in ("float32", "bfloat16")]
    for name, kind, (length, channels, packed, stateful) in plan:
        if report.late(f"{name} {kind} T={length}"):
            continue
        dtype, batch = getattr(torch, kind), 2
        module = getattr(package, name)
        forward = getattr(module, f"{name}_fwd")
        scan = name in SCANS
        inputs = (scan_inputs if scan else conv_inputs)(name, batch, length, channels, dtype)
        inputs["positions"] = positions_of(batch, length) if packed else None
        state = torch.randn(batch, channels, SCANS[name]["d_state"], device="cuda") if scan else None
        if not scan:
            state = torch.randn(batch, CONVS[name]["width"] - 1, channels, device="cuda").to(dtype)
        inputs["initial"] = state if stateful else None
        options = {"dt_softplus": SCANS[name]["dt_softplus"]} if scan else {"silu": CONVS[name]["silu"]}
        reference = partial(
            getattr(package.reference, name.split("_bare")[0].split("_wide")[0].split("_narrow")[0].split("_plain")[0]),
            **options,
        )
        label = f"{name} T={length} D={channels} packed={packed:d} state={stateful:d}"
        if scan:
            check(report, label, lambda f=forward, **i: f(*i.values())[:2], reference, inputs)
        else:
            check(report, label, lambda f=forward, **i: f(*i.values()), lambda r=reference, **i: r(**i)[0], inputs)
        if stateful and length == 1:
            initial = inputs.pop("initial").clone()
            wide = {k: v.double() if v is not None and v.is_floating_point() else v for k, v in inputs.items()}
            y, final = reference(**wide, initial=initial.double())
            with torch.no_grad():
                stepped = getattr(module, name)(**inputs, state=initial)
            report.errors(f"{name} step {kind}", kind, {"y": error(stepped, y), "state": error(initial, final)})


def check_lanes_case(folder: Path, case: tuple[str, str, int, bool, bool]) -> tuple[list[str], list[str], Any]:
    """One case of the scan's lane programs, in a process of its own: it is mostly compilation."""
    import torch

    name, kind, length, packed, stateful = case
    package = load(folder)
    poison()
    torch.manual_seed(length)
    report, ops = Report(None), getattr(package, name)
    forward, dtype, batch = getattr(ops, f"{name}_fwd"), getattr(torch, kind), 2
    inputs = scan_inputs(name, batch, length, LANE_CHANNELS, dtype)
    inputs["positions"] = positions_of(batch, length) if packed else None
    inputs["initial"] = torch.randn(batch, LANE_CHANNELS, 16, device="cuda") if stateful else None
    oracle = partial(package.reference.selective_scan, dt_softplus=SCANS[name]["dt_softplus"])
    lanes = importlib.import_module(f"kernels_pkg.{name}_lanes_kernels")
    for number, plan in enumerate(lanes.PLANS):
        lanes.PLANS = (plan,)
        label = f"{name} T={length} packed={packed:d} state={stateful:d} plan={number}"
        run = lambda **i: forward(*i.values())[:2]  # noqa: E731
        check(report, label, run, oracle, inputs, moving=("dB", "dC"))
        torch.use_deterministic_algorithms(True)
        check(report, f"{label} deterministic", run, oracle, inputs)
        torch.use_deterministic_algorithms(False)
    return report.lines, report.failures, report.worst


def check_lanes(report: Report, package: Any) -> None:
    folder = Path(package.__file__).parents[1]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(12, os.cpu_count() or 1), mp_context=context) as pool:
        for done in as_completed([pool.submit(check_lanes_case, folder, case) for case in LANE_CASES]):
            report.merge(*done.result())


def check_pointwise(report: Report, package: Any) -> None:
    import torch

    for kind in TOLERANCE:
        dtype = getattr(torch, kind)
        for shape in ((1, 1, 16), (2, 63, 256), (2, 5, 257), (3, 1000, 4096), (3, 16384)):
            if report.late(f"rms_norm {kind} {shape}"):
                continue
            wide = torch.randn(*shape[:-1], shape[-1] + 48, device="cuda").to(dtype)
            x, weight = wide[..., 16 : 16 + shape[-1]], torch.randn(shape[-1], device="cuda").to(dtype)
            residual = torch.randn(shape, device="cuda")
            for name, inputs in (
                ("rms_norm", {"x": x, "weight": weight}),
                ("add_rms_norm", {"x": x, "residual": residual, "weight": weight}),
            ):
                run = partial(getattr(package.rms_norm, name), eps=1e-5)
                oracle = partial(getattr(package.reference, name), eps=1e-5)
                check(report, f"{name} {list(shape)}", run, oracle, inputs)
            if shape[-1] < 16384:
                gate, up = torch.randn(*shape[:-1], 2 * shape[-1], device="cuda").to(dtype).chunk(2, -1)
                inputs = {"gate": gate, "up": up}
                check(report, f"swiglu {list(shape)}", package.swiglu.swiglu, package.reference.swiglu, inputs)


def check_far_offsets(report: Report, package: Any) -> None:
    """More than 2^31 elements a tensor: the end of a long sequence equals that end alone, given its state."""
    import torch

    length, tail, d_inner = 270_000, 1000, 8192
    name = f"selective_scan_d{d_inner}"
    inputs = scan_inputs(name, 1, length, d_inner, torch.bfloat16)  # y has 2.2e9 elements, x and z rows 4.4e9
    grad = torch.randn(1, length, d_inner, device="cuda", dtype=torch.bfloat16)
    last = {k: v[:, -tail:] if v.ndim == 3 else v for k, v in inputs.items()}
    before = {k: v[:, :-tail] if v.ndim == 3 else v for k, v in inputs.items()}
    forward, backward = (getattr(getattr(package, name), f"{name}_{pass_}") for pass_ in ("fwd", "bwd"))
    y, final, states = forward(*inputs.values(), None, None)
    _, state, _ = forward(*before.values(), None, None)
    y_last, final_last, states_last = forward(*last.values(), None, state)
    errors = {"y": error(y[:, -tail:], y_last), "final": error(final, final_last)}
    grads = backward(grad, None, *inputs.values(), None, states)
    grads_last = backward(grad[:, -tail:], None, *last.values(), None, states_last)
    for key, whole, end in zip(inputs, grads, grads_last, strict=False):
        if whole.ndim == 3:
            errors[f"d{key}"] = error(whole[:, -tail:], end)
    report.errors(f"{name} T={length} far offsets", "bfloat16", errors)
    del grads, y, states
    conv = conv_inputs("causal_conv1d", 1, length, d_inner, torch.bfloat16)
    y = package.causal_conv1d.causal_conv1d(**conv)
    end = package.causal_conv1d.causal_conv1d(**conv | {"x": conv["x"][:, -tail:]})
    report.errors(f"causal_conv1d T={length} far offsets", "bfloat16", {"y": error(y[:, 3 - tail :], end[:, 3:])})


def timings(report: Report, package: Any) -> None:
    import torch

    half = torch.bfloat16
    for batch, length, d_inner in ((4, 4096, 8192), (8, 2048, 8192), (1, 4096, 8192), (4, 4096, 5120)):
        inputs = scan_inputs("selective_scan", batch, length, d_inner, half)
        tensor, shape = batch * length * d_inner * 2, f"B{batch} L{length} D{d_inner} N16"
        for name in (f"selective_scan_d{d_inner}", "selective_scan"):
            ops = getattr(package, name)
            forward, backward = getattr(ops, f"{name}_fwd"), getattr(ops, f"{name}_bwd")
            y, _, states = forward(*inputs.values(), None, None)
            first = report.timed(
                f"{name} fwd {shape}", lambda f=forward, i=inputs: f(*i.values(), None, None), 4 * tensor
            )
            run = lambda f=backward, i=inputs, y=y, s=states: f(y, None, *i.values(), None, s)  # noqa: E731
            both = first + report.timed(f"{name} bwd {shape}", run, 7 * tensor)
            theirs, theirs_both = MAMBA_SSM[batch, length, d_inner]
            report.table.append(f"    against mamba_ssm: forward {theirs / first:.2f}x, both {theirs_both / both:.2f}x")
            report.line(report.table[-1])
    for batch in (64, 256):
        token, state = scan_inputs("selective_scan", batch, 1, 8192, half), torch.zeros(batch, 8192, 16, device="cuda")
        step = package.selective_scan.selective_scan_step
        report.timed(
            f"selective_scan step B{batch} D8192 N16",
            partial(step, *token.values(), None, state),
            2 * state.numel() * 4,
        )
        token, window = (
            conv_inputs("causal_conv1d", batch, 1, 8192, half),
            torch.zeros(batch, 3, 8192, device="cuda", dtype=half),
        )
        step = package.causal_conv1d.causal_conv1d_step
        report.timed(
            f"causal_conv1d step B{batch} D8192",
            partial(step, *token.values(), None, window),
            8 * window.numel() / 3 * 2,
        )
    for batch, length, channels in ((4, 4096, 8192), (4, 4096, 5376)):
        inputs = conv_inputs("causal_conv1d", batch, length, channels, half)
        tensor, shape = batch * length * channels * 2, f"B{batch} L{length} D{channels} W4"
        ops = package.causal_conv1d
        y = ops.causal_conv1d_fwd(*inputs.values(), None, None)
        report.timed(
            f"causal_conv1d fwd {shape}",
            lambda f=ops.causal_conv1d_fwd, i=inputs: f(*i.values(), None, None),
            2 * tensor,
        )
        report.timed(
            f"causal_conv1d bwd {shape}",
            lambda f=ops.causal_conv1d_bwd, i=inputs, y=y: f(y, *i.values(), None, None),
            3 * tensor,
        )
    x, residual, weight = (
        torch.randn(*shape, device="cuda", dtype=half) for shape in ((16384, 4096), (16384, 4096), (4096,))
    )
    ops, tensor = package.rms_norm, x.numel() * 2
    y, rstd = ops.rms_norm_fwd(x, weight, 1e-5)
    report.timed("rms_norm fwd T16384 D4096", lambda: ops.rms_norm_fwd(x, weight, 1e-5), 2 * tensor)
    report.timed("rms_norm bwd T16384 D4096", lambda: ops.rms_norm_bwd(y, None, x, weight, rstd), 3 * tensor)
    report.timed("add_rms_norm fwd T16384 D4096", lambda: ops.add_rms_norm_fwd(x, residual, weight, 1e-5), 4 * tensor)
    report.timed("add_rms_norm bwd T16384 D4096", lambda: ops.rms_norm_bwd(y, y, x, weight, rstd), 4 * tensor)
    gate, up = torch.randn(16384, 2 * 14336, device="cuda", dtype=half).chunk(2, -1)
    ops, tensor = package.swiglu, gate.numel() * 2
    y = ops.swiglu_fwd(gate, up)
    report.timed("swiglu fwd T16384 F14336", lambda: ops.swiglu_fwd(gate, up), 3 * tensor)
    report.timed("swiglu bwd T16384 F14336", lambda: ops.swiglu_bwd(y, gate, up), 5 * tensor)


SECTIONS: dict[str, tuple[str, Callable[[Report, Any], None]]] = {
    "lanes": ("lane programs of the scan against float64", check_lanes),
    "mixers": ("scan and convolution against float64", check_mixers),
    "pointwise": ("norms and swiglu against float64", check_pointwise),
    "far": ("far offsets", check_far_offsets),
    "timings": ("timings", timings),
}


def load(folder: Path) -> Any:
    sys.path.insert(0, str(folder.resolve()))
    package = importlib.import_module("kernels_pkg")
    for file in sorted((folder / "kernels_pkg").glob("*.py")):
        if not file.stem.endswith(("__init__", "_kernels")):
            importlib.import_module(f"kernels_pkg.{file.stem}")
    return package


def poison() -> Callable[[], None]:
    """Let new memory start as NaN; return what undoes it."""
    import torch

    allocations = [
        (owner, name, getattr(owner, name))
        for owner, name in ((torch, "empty"), (torch, "empty_like"), (torch.Tensor, "new_empty"))
    ]
    for owner, name, original in allocations:
        setattr(owner, name, poisoned(original))

    def undo() -> None:
        for owner, name, original in allocations:
            setattr(owner, name, original)

    return undo


def run(folder: Path, only: list[str]) -> int:
    import torch
    import triton

    package = load(folder)
    report = Report(Path(os.environ.get("OUT", folder)) / "check_kernels.log")
    report.line(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, triton {triton.__version__}")
    torch.manual_seed(0)
    undo = poison()
    for key, (title, section) in SECTIONS.items():
        if only and key not in only:
            continue
        report.line(f"\n== {title} ({time.monotonic() - report.start:.0f} s)")
        if section is timings:  # without the time that NaN takes
            undo()
        try:
            section(report, package)
        except Exception as problem:  # the other sections still tell something
            report.failures.append(f"{title}: {type(problem).__name__}: {str(problem)[:300]}")
            report.line(f"FAIL {title}: {type(problem).__name__}: {problem}")
        torch.cuda.empty_cache()
    report.line(f"\n== summary ({time.monotonic() - report.start:.0f} s)")
    for key, value in report.worst.items():
        report.line(f"worst error {key:32s} {value:.1e}")
    for row in report.table:
        report.line(row)
    for failure in report.failures:
        report.line(f"FAIL {failure}")
    report.line("all checks passed" if not report.failures else f"{len(report.failures)} failures")
    return 1 if report.failures else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="holds kernels_pkg")
    parser.add_argument("--render", action="store_true", help="write kernels_pkg and stop")
    parser.add_argument("--only", action="append", default=[], choices=SECTIONS, help="run this part alone")
    arguments = parser.parse_args()
    if arguments.render:
        render(arguments.folder)
        return 0
    return run(arguments.folder, arguments.only)


if __name__ == "__main__":
    sys.exit(main())
