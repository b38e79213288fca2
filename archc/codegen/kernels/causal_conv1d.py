"""What a model fixes of the depthwise causal convolution."""

from __future__ import annotations

from dataclasses import dataclass

from archc.codegen.kernels.kernel import Kernel


@dataclass(frozen=True, kw_only=True)
class CausalConv1d(Kernel, family="causal_conv1d"):
    """A depthwise causal convolution, with SiLU or not. FLOPs are expressions over B, T, channels and d_conv."""

    templates = ("causal_conv1d.py", "causal_conv1d_kernels.py", "causal_conv1d_backward_kernels.py")
    runtime = ("dispatch.py",)
    width: int
    bias: bool
    silu: bool
    flops_forward: str
    flops_backward: str

    @property
    def inputs(self) -> tuple[str, ...]:
        """The tensors of the signature, in order."""
        return ("x", "weight", "bias") if self.bias else ("x", "weight")

    @property
    def last(self) -> int:
        """How many earlier tokens a token sees."""
        return self.width - 1

    @property
    def sums(self) -> int:
        """Sums over tokens that backward takes for each channel."""
        return self.width + self.bias
