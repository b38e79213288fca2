"""The int8 kernel in Triton's interpreter against float64: `python -m tests.kinds.int8_interpreted FOLDER`.

A process of its own, because the interpreter must be chosen before triton is imported.
"""

import importlib
import os
import sys

os.environ["TRITON_INTERPRET"] = "1"

import torch

TOLERANCE = 1e-6  # float32: sums of up to 70 products
CASES = [([5, 0, 1, 17], 7, 9), ([0, 0, 3], 64, 64), ([200, 1], 70, 65), ([0, 1, 0, 0], 1, 1)]


def main(folder: str) -> int:
    sys.path.insert(0, folder)
    kernels = importlib.import_module("int8_kernels_pkg.int8_expert_linear_kernels")
    wrong = 0
    for counts, d_in, d_out in CASES:
        rows = torch.randn(sum(counts), d_in)
        weight = torch.randint(-127, 128, (len(counts), d_out, d_in), dtype=torch.int8)
        scale = torch.rand(len(counts), d_out)
        ends = torch.tensor(counts).cumsum(0).to(torch.int32)
        y = kernels.forward(rows, weight, scale, ends).double()
        experts = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
        wide = weight.double() * scale.double()[..., None]
        want = torch.einsum("rk,rck->rc", rows.double(), wide[experts])
        error = float((y - want).abs().max() / want.abs().max())
        print(counts, d_in, d_out, f"{error:.1e}")
        wrong += not error <= TOLERANCE
    return wrong


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
