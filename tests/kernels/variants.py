"""The kernel variants that the tests render, and the package that holds them."""

import shutil
from pathlib import Path

from archc.codegen.kernels import Kernel, render
from archc.codegen.kernels.causal_conv1d import CausalConv1d
from archc.codegen.kernels.rms_norm import RmsNorm
from archc.codegen.kernels.selective_scan import SelectiveScan
from archc.codegen.kernels.swiglu import Swiglu

from .ssds import SSDS

RUNTIME = Path(__file__).parents[2] / "archc" / "codegen" / "runtime"
SHARED = ("dispatch.py", "recompute.py", "recurrence.py", "reference.py", "reference_ssd.py", "ssd_chunks.py")
SCAN_FLOPS = {
    "flops_forward": "B * T * d_inner * (7 * d_state + 3)",
    "flops_backward": "2 * B * T * d_inner * (7 * d_state + 3)",
}
CONV_FLOPS = {"flops_forward": "2 * B * T * channels * d_conv", "flops_backward": "4 * B * T * channels * d_conv"}


def scan(name: str, d_state: int, options: str, d_inner: int = 7) -> SelectiveScan:
    """A scan with those of the options gate, skip, dt_bias and dt_softplus that are named.

    Lane programs are made for `d_inner` channels; the plain kernels, which 7 channels get, take any number of them.
    """
    words = options.split()
    flags = {word: word in words for word in ("gate", "skip", "dt_bias", "dt_softplus")}
    return SelectiveScan(name=name, d_inner=d_inner, d_state=d_state, **flags, **SCAN_FLOPS)


SCANS = {
    view.name: view
    for view in (
        scan("selective_scan", 16, "gate skip dt_bias dt_softplus"),
        scan("selective_scan_bare", 16, ""),
        scan("selective_scan_gate", 5, "gate dt_softplus"),
        scan("selective_scan_skip", 4, "skip dt_bias"),
        scan("selective_scan_wide", 64, "gate skip dt_bias dt_softplus"),
        scan("selective_scan_n16", 16, "gate skip dt_bias dt_softplus", 32),
        scan("selective_scan_n16_bare", 16, "", 16),
        scan("selective_scan_n16_gate", 16, "gate dt_softplus", 16),
        scan("selective_scan_n16_skip", 16, "skip dt_bias", 16),
    )
}
CONVS = {
    view.name: view
    for view in (
        CausalConv1d(name="causal_conv1d", width=4, bias=True, silu=True, **CONV_FLOPS),
        CausalConv1d(name="causal_conv1d_plain", width=3, bias=False, silu=False, **CONV_FLOPS),
        CausalConv1d(name="causal_conv1d_linear", width=2, bias=True, silu=False, **CONV_FLOPS),
        CausalConv1d(name="causal_conv1d_pointwise", width=1, bias=False, silu=True, **CONV_FLOPS),
    )
}
VIEWS: dict[str, Kernel] = {**SCANS, **CONVS, "rms_norm": RmsNorm(), "swiglu": Swiglu()}


def write_package(folder: Path, namespace: str) -> None:
    """Write all variants, and what they import, as one importable package."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "__init__.py").write_text('"""Kernels under test."""\n')
    (folder / "namespace.py").write_text(f'"""The operators\' namespace."""\n\nNAMESPACE = "{namespace}"\n')
    for file in SHARED:
        shutil.copy(RUNTIME / file, folder / file)
    for view in (*VIEWS.values(), *SSDS.values()):
        for file, text in render(view).items():
            (folder / file).write_text(text)
