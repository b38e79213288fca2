"""Kernels in Triton's interpreter against the float64 reference: `python -m tests.kernels.interpreted FOLDER NAME`.

A process of its own, because the interpreter must be chosen before triton is imported. All memory that the kernels
write starts as NaN, so that an element they forget is seen. Prints a line a case; the exit status says whether all are
right.
"""

import importlib
import os
import sys
from functools import partial
from types import ModuleType
from typing import Any

os.environ["TRITON_INTERPRET"] = "1"

import torch
from torch import Tensor

from .inputs import BATCH, conv_inputs, doubled, error, gradients, positions_of, scan_inputs
from .variants import CONVS, SCANS

TOLERANCE = 1e-5  # float32: sums of up to a thousand terms, exponentials included
# Length, channels, packed documents?, state?
CASES = {
    "first": [
        (1, 5, False, False),
        (1, 6, True, True),
        (63, 5, True, True),
        (64, 33, False, True),
        (65, 7, True, False),
    ],
    "other": [(1, 5, True, True), (65, 5, True, True), (6, 3, False, False)],
}


def poison() -> None:
    """Fill what torch leaves uninitialised with NaN, and integers with a number that no index equals."""
    for owner, name in ((torch, "empty"), (torch, "empty_like"), (torch.Tensor, "new_empty")):
        original = getattr(owner, name)

        def poisoned(*args: Any, original: Any = original, **options: Any) -> Tensor:
            made: Tensor = original(*args, **options)
            return made.fill_(float("nan") if made.is_floating_point() else -12345)

        setattr(owner, name, poisoned)


def compare(label: str, names: list[str], actual: list[Tensor], expected: list[Tensor]) -> bool:
    errors = {name: error(a, b) for name, a, b in zip(names, actual, expected, strict=True)}
    right = max(errors.values()) <= TOLERANCE
    print("ok  " if right else "FAIL", label, " ".join(f"{name}={value:.1e}" for name, value in errors.items()))
    return right


def check(label: str, run: Any, reference: Any, inputs: dict[str, Tensor | None]) -> bool:
    outputs, grads = gradients(run, inputs)
    expected, expected_grads = gradients(reference, doubled(inputs))
    names = [f"out{i}" for i in range(len(outputs))]
    names += [f"d{key}" for key, value in inputs.items() if value is not None and value.is_floating_point()]
    return compare(label, names, outputs + grads, expected + expected_grads)


def scan(package: ModuleType, name: str) -> bool:
    if not SCANS[name].lanes:
        cases = CASES["first"] + [(1000, 3, False, True)] if name == "selective_scan" else CASES["other"]
        return scan_cases(package, name, cases)
    # Lane programs: both ways to add up the gradients of B and C, the most different plans.
    lanes = importlib.import_module(f"{package.__name__}.{name}_lanes_kernels")
    few, *_, many = lanes.PLANS
    d_inner = SCANS[name].d_inner
    again = [(plan, (33, d_inner, False, True)) for plan in lanes.PLANS if plan.again]
    torch.use_deterministic_algorithms(True)
    lanes.PLANS = (few,)
    right = scan_cases(package, name, [(1, d_inner, True, True), (43, d_inner, True, True)])
    torch.use_deterministic_algorithms(False)
    for plan, case in (*again, (many, (8, d_inner, True, False))):
        lanes.PLANS = (plan,)
        right &= scan_cases(package, name, [case])
    return right


def scan_cases(package: ModuleType, name: str, cases: list[tuple[int, int, bool, bool]]) -> bool:
    module, view = importlib.import_module(f"{package.__name__}.{name}"), SCANS[name]
    forward, reference = getattr(module, f"{name}_fwd"), package.reference.selective_scan
    right = True
    for length, d_inner, packed, stateful in cases:
        batch = 1 if length > 63 else BATCH
        inputs: dict[str, Tensor | None] = dict(scan_inputs(name, length, d_inner, torch.float32, batch))
        inputs["positions"] = positions_of(batch, length) if packed else None
        inputs["initial"] = torch.randn(batch, d_inner, view.d_state) if stateful else None
        oracle = partial(reference, dt_softplus=view.dt_softplus)
        run = lambda **inputs: forward(*inputs.values())[:2]  # noqa: E731
        right &= check(f"{name} T={length} D={d_inner} packed={packed} state={stateful}", run, oracle, inputs)
        if stateful and length == 1:
            state = inputs.pop("initial")
            assert state is not None
            y, final = oracle(**doubled(inputs), initial=state.double())
            with torch.no_grad():
                stepped = getattr(module, name)(**inputs, state=state)
            right &= compare(f"{name} step", ["y", "state"], [stepped, state], [y, final])
    return right


def conv(package: ModuleType, name: str) -> bool:
    module, view = importlib.import_module(f"{package.__name__}.{name}"), CONVS[name]
    forward = getattr(module, f"{name}_fwd")
    right = True
    cases = (
        CASES["first"] + [(2, 600, True, True), (1000, 5, False, True)] if name == "causal_conv1d" else CASES["other"]
    )
    for length, channels, packed, stateful in cases:
        batch = 1 if length > 63 else BATCH
        inputs: dict[str, Tensor | None] = dict(conv_inputs(name, length, channels, torch.float32, batch))
        inputs["positions"] = positions_of(batch, length) if packed else None
        inputs["initial"] = torch.randn(batch, view.width - 1, channels) if stateful else None

        def oracle(silu: bool = view.silu, **inputs: Any) -> Tensor:
            y: Tensor = package.reference.causal_conv1d(**inputs, silu=silu)[0]
            return y

        run = lambda **inputs: forward(*inputs.values())  # noqa: E731
        right &= check(f"{name} T={length} C={channels} packed={packed} state={stateful}", run, oracle, inputs)
        if stateful and length == 1:
            state = inputs.pop("initial")
            assert state is not None
            y, last = package.reference.causal_conv1d(**doubled(inputs), initial=state.double(), silu=view.silu)
            with torch.no_grad():
                stepped = getattr(module, name)(**inputs, state=state)
            right &= compare(f"{name} step", ["y", "state"], [stepped, state], [y, last])
    return right


def norm(package: ModuleType, name: str) -> bool:
    module = importlib.import_module(f"{package.__name__}.{name}")
    right = True
    for shape in ((1, 1, 16), (2, 63, 16), (1, 5, 257), (3, 1000), (2, 16384)):
        wide = torch.randn(*shape[:-1], shape[-1] + 24)
        inputs: dict[str, Tensor | None] = {"x": wide[..., 8 : 8 + shape[-1]], "weight": torch.randn(shape[-1])}
        label = f"{name} {list(shape)}"
        eps = {"eps": 1e-5}
        oracle, add_oracle = package.reference.rms_norm, package.reference.add_rms_norm
        right &= check(label, partial(module.rms_norm, **eps), partial(oracle, **eps), inputs)
        inputs = {"x": inputs["x"], "residual": torch.randn(shape), "weight": inputs["weight"]}
        right &= check(f"add_{label}", partial(module.add_rms_norm, **eps), partial(add_oracle, **eps), inputs)
    return right


def swiglu(package: ModuleType, name: str) -> bool:
    module = importlib.import_module(f"{package.__name__}.{name}")
    right = True
    for shape in ((1, 1, 1), (2, 63, 65), (2, 3, 1000), (3, 1030)):
        gate, up = torch.randn(*shape[:-1], 2 * shape[-1]).split(shape[-1], -1)
        inputs: dict[str, Tensor | None] = {"gate": gate, "up": up}
        right &= check(f"{name} {list(shape)}", module.swiglu, package.reference.swiglu, inputs)
    return right


def main(folder: str, name: str) -> int:
    sys.path.insert(0, folder)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    poison()
    package = importlib.import_module("kernels_pkg")
    importlib.import_module("kernels_pkg.reference")
    check_family = scan if name in SCANS else conv if name in CONVS else norm if name == "rms_norm" else swiglu
    return 0 if check_family(package, name) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
