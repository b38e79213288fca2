"""The Triton kernels on a GPU: right at every dtype against the float64 reference, and how fast.

    python bench/check_kernels.py --render build      # anywhere: writes build/kernels_pkg (needs archc and jinja2)
    python bench/check_kernels.py build               # on the GPU: needs torch and triton alone

Outputs start as NaN, activations are slices of wider tensors, and every backward pass runs twice and must agree to the
last bit. The report goes to standard output and to `check_kernels.log` in $OUT (default: the folder given). The exit
status says whether every check passed.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ALL = {"gate": True, "skip": True, "dt_bias": True, "dt_softplus": True}
NONE = dict.fromkeys(ALL, False)
SCANS: dict[str, dict[str, Any]] = {
    "selective_scan": {"d_state": 16, **ALL},
    "selective_scan_bare": {"d_state": 16, **NONE},
    "selective_scan_narrow": {"d_state": 5, **ALL, "skip": False},
    "selective_scan_wide": {"d_state": 64, **ALL},
    # Only timed: other tiles.
    "selective_scan_f2b1": {"d_state": 16, **ALL, "steps": 2, "backward_steps": 1},
    "selective_scan_f8b4": {"d_state": 16, **ALL, "steps": 8, "backward_steps": 4},
}
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
COPY_BANDWIDTH = 4.28e12  # bytes a second, read and written, of a device copy on one H200 (measured)
SECONDS = 200  # after which what remains is skipped, and said to be


def render(folder: Path) -> None:
    """Write the package that the GPU machine runs."""
    sys.path.insert(0, str(ROOT))
    from archc.codegen.kernels import CausalConv1d, RmsNorm, SelectiveScan, Swiglu
    from archc.codegen.kernels import render as render_view

    package = folder / "kernels_pkg"
    package.mkdir(parents=True, exist_ok=True)
    zero = {"flops_forward": "0", "flops_backward": "0"}
    views = [SelectiveScan(name=name, **options, **zero) for name, options in SCANS.items()]
    views += [CausalConv1d(name=name, **options, **zero) for name, options in CONVS.items()]
    for view in (*views, RmsNorm(), Swiglu()):
        for file, text in render_view(view).items():
            (package / file).write_text(text)
    for file in ("dispatch.py", "recurrence.py", "reference.py", "namespace.py"):
        shutil.copy(ROOT / "archc" / "codegen" / "runtime" / file, package / file)
    (package / "__init__.py").write_text("")
    print(f"{package}: {len(list(package.glob('*.py')))} files")


class Report:
    """Lines to the screen and to a file at once, and what failed."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("w")
        self.start = time.monotonic()
        self.failures: list[str] = []
        self.table: list[str] = []
        self.worst: dict[str, float] = {}

    def line(self, text: str) -> None:
        for stream in (sys.stdout, self.file):
            print(text, file=stream, flush=True)

    def late(self, what: str) -> bool:
        if time.monotonic() - self.start < SECONDS:
            return False
        self.line(f"skipped for time: {what}")
        return True

    def errors(self, label: str, dtype: str, errors: dict[str, float], *, factor: float = 1.0) -> None:
        bound = TOLERANCE[dtype] * factor
        wrong = {name: value for name, value in errors.items() if not value <= bound}
        self.line(f"{'FAIL' if wrong else 'ok  '} {label} " + " ".join(f"{n}={v:.0e}" for n, v in errors.items()))
        key = f"{label.split()[0]} {dtype}"
        self.worst[key] = max(self.worst.get(key, 0.0), *errors.values())
        if wrong:
            self.failures.append(f"{label}: {wrong}")

    def timed(self, label: str, run: Callable[[], object], n_bytes: float) -> None:
        from triton.testing import do_bench

        try:
            ms = do_bench(run, warmup=20, rep=100, return_mode="median")
        except Exception as problem:  # one kernel that cannot launch must not hide the others
            self.failures.append(f"timing {label}: {type(problem).__name__}: {str(problem)[:200]}")
            self.line(f"FAIL timing {label}: {problem}")
            return
        floor = n_bytes / COPY_BANDWIDTH * 1e3
        row = f"{label:58s} {ms:8.3f} ms  {n_bytes / ms / 1e6:6.0f} GB/s  {ms / floor:5.2f}x the memory floor"
        self.table.append(row)
        self.line(row)


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
    inputs = {"x": x, "dt": dt - 1 if options["dt_softplus"] else dt.abs() * 0.3}
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


def check(report: Report, label: str, run: Any, oracle: Any, inputs: dict[str, Any], factor: float = 1.0) -> None:
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
    report.errors(f"{label} {dtype}", dtype, errors, factor=factor)
    if not all(torch.equal(a, b) for a, b in zip(grads, again, strict=True)):
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
    inputs = scan_inputs(
        "selective_scan", 1, length, d_inner, torch.bfloat16
    )  # y has 2.2e9 elements, x and z rows 4.4e9
    grad = torch.randn(1, length, d_inner, device="cuda", dtype=torch.bfloat16)
    last = {k: v[:, -tail:] if v.ndim == 3 else v for k, v in inputs.items()}
    before = {k: v[:, :-tail] if v.ndim == 3 else v for k, v in inputs.items()}
    ops = package.selective_scan
    y, final, states = ops.selective_scan_fwd(*inputs.values(), None, None)
    _, state, _ = ops.selective_scan_fwd(*before.values(), None, None)
    y_last, final_last, states_last = ops.selective_scan_fwd(*last.values(), None, state)
    errors = {"y": error(y[:, -tail:], y_last), "final": error(final, final_last)}
    grads = ops.selective_scan_bwd(grad, None, *inputs.values(), None, states)
    grads_last = ops.selective_scan_bwd(grad[:, -tail:], None, *last.values(), None, states_last)
    for key, whole, end in zip(inputs, grads, grads_last, strict=False):
        if whole.ndim == 3:
            errors[f"d{key}"] = error(whole[:, -tail:], end)
    report.errors(f"selective_scan T={length} D={d_inner} far offsets", "bfloat16", errors)
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
        names = ["selective_scan"]
        if (batch, length, d_inner) == (4, 4096, 8192):
            names += ["selective_scan_f2b1", "selective_scan_f8b4"]
        for name in names:
            ops = getattr(package, name)
            forward, backward = getattr(ops, f"{name}_fwd"), getattr(ops, f"{name}_bwd")
            y, _, states = forward(*inputs.values(), None, None)
            report.timed(f"{name} fwd {shape}", lambda f=forward, i=inputs: f(*i.values(), None, None), 4 * tensor)
            run = lambda f=backward, i=inputs, y=y, s=states: f(y, None, *i.values(), None, s)  # noqa: E731
            report.timed(f"{name} bwd {shape}", run, 7 * tensor)
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


def sections() -> Iterator[tuple[str, Callable[[Report, Any], None]]]:
    yield "scan and convolution against float64", check_mixers
    yield "norms and swiglu against float64", check_pointwise
    yield "far offsets", check_far_offsets
    yield "timings", timings


def run(folder: Path) -> int:
    import torch
    import triton

    sys.path.insert(0, str(folder.resolve()))
    package = importlib.import_module("kernels_pkg")
    for file in sorted((folder / "kernels_pkg").glob("*.py")):
        if not file.stem.endswith(("__init__", "_kernels")):
            importlib.import_module(f"kernels_pkg.{file.stem}")
    report = Report(Path(os.environ.get("OUT", folder)) / "check_kernels.log")
    report.line(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, triton {triton.__version__}")
    torch.manual_seed(0)
    allocations = [
        (owner, name, getattr(owner, name))
        for owner, name in ((torch, "empty"), (torch, "empty_like"), (torch.Tensor, "new_empty"))
    ]
    for owner, name, original in allocations:
        setattr(owner, name, poisoned(original))
    for title, section in sections():
        report.line(f"\n== {title} ({time.monotonic() - report.start:.0f} s)")
        if section is timings:  # without the time that NaN takes
            for owner, name, original in allocations:
                setattr(owner, name, original)
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
    arguments = parser.parse_args()
    if arguments.render:
        render(arguments.folder)
        return 0
    return run(arguments.folder)


if __name__ == "__main__":
    sys.exit(main())
