"""What a model fixes of projections by experts of int8: nothing."""

from __future__ import annotations

from dataclasses import dataclass

from archc.codegen.kernels.kernel import Kernel


@dataclass(frozen=True, kw_only=True)
class Int8ExpertLinear(Kernel, family="int8_expert_linear"):
    """Rows times their expert's int8 matrix, widened inside the product. `quantise.py` makes such matrices."""

    templates = ("int8_expert_linear.py", "int8_expert_linear_kernels.py")
    runtime = ("dispatch.py", "experts.py", "quantise.py")
