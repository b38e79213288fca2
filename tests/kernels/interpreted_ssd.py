"""The kernels of Mamba-2's recurrence in Triton's interpreter: `python -m tests.kernels.interpreted_ssd FOLDER NAME`.

As `interpreted.py`, which sets the interpreter before triton is imported. Prints a line a case.
"""

import sys
from functools import partial
from typing import Any

from . import interpreted  # isort: skip

import importlib

import torch

from .inputs import doubled, error, gradients
from .ssds import SSDS, Case, ssd_inputs

# float32: in a block of 32 tokens the sums of log2 decays reach a few hundred, and the decays lose 2^-24 of that.
TOLERANCE = 3e-5
SUMMED = {"dA_log": 2e-4, "ddt_bias": 2e-4}  # of all tokens of a head: terms of both signs, which cancel
CASES = {
    "ssd": [
        Case(2, 1, packed=True, stateful=True),
        Case(2, 63, packed=True, stateful=True),
        Case(1, 64, packed=False, stateful=False),
        Case(1, 97, packed=True, stateful=False),
    ],
    "ssd_n128": [Case(1, 1, packed=False, stateful=True), Case(1, 65, packed=True, stateful=True)],
    "ssd_wide": [Case(1, 40, packed=False, stateful=True)],
    "ssd_plain": [Case(2, 30, packed=True, stateful=True)],
}


def compare(label: str, names: list[str], actual: list[Any], expected: list[Any]) -> bool:
    errors = {name: error(a, b) for name, a, b in zip(names, actual, expected, strict=True)}
    right = all(value <= SUMMED.get(name, TOLERANCE) for name, value in errors.items())
    print("ok  " if right else "FAIL", label, " ".join(f"{name}={value:.1e}" for name, value in errors.items()))
    return right


def main(folder: str, name: str) -> int:
    sys.path.insert(0, folder)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    interpreted.poison()
    module = importlib.import_module(f"kernels_pkg.{name}")
    reference = importlib.import_module("kernels_pkg.reference_ssd").ssd
    forward, view, right = getattr(module, f"{name}_fwd"), SSDS[name], True
    oracle = partial(reference, dt_limit=(float(view.dt_min), float(view.dt_max)))
    for case in CASES[name]:
        inputs = ssd_inputs(view, case, torch.float32)
        outputs, grads = gradients(lambda **given: forward(*given.values())[:2], inputs)
        expected, expected_grads = gradients(oracle, doubled(inputs))
        names = ["y", "final", *(f"d{key}" for key, v in inputs.items() if v is not None and v.is_floating_point())]
        right &= compare(f"{name} {case}", names, outputs + grads, expected + expected_grads)
        state = inputs.pop("initial")
        if state is not None and case.length == 1:
            y, final = oracle(**doubled(inputs), initial=state.double())
            with torch.no_grad():
                stepped = getattr(module, name)(**inputs, state=state)
            right &= compare(f"{name} step", ["y", "state"], [stepped, state], [y, final])
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
