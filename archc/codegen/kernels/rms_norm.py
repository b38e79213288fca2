"""What a model fixes of RMSNorm."""

from __future__ import annotations

from dataclasses import dataclass

from archc.codegen.kernels.kernel import Kernel


@dataclass(frozen=True, kw_only=True)
class RmsNorm(Kernel, family="rms_norm"):
    """RMSNorm, alone and after a residual addition."""

    templates = ("rms_norm.py", "rms_norm_kernels.py")
    runtime = ("dispatch.py",)
    one_plus: bool = False  # the factor is 1 + weight
