"""What a model fixes of the gated linear unit: nothing."""

from __future__ import annotations

from dataclasses import dataclass

from archc.codegen.kernels.kernel import Kernel


@dataclass(frozen=True, kw_only=True)
class Swiglu(Kernel, family="swiglu"):
    """silu(gate) * up."""

    templates = ("swiglu.py", "swiglu_kernels.py")
    runtime = ("dispatch.py",)
