"""What a model fixes of Mamba-2's recurrence, and the tiles that its sizes ask for."""

from __future__ import annotations

from dataclasses import dataclass

from archc.codegen.kernels.kernel import Kernel
from archc.ops import ssd


@dataclass(frozen=True, kw_only=True)
class Ssd(Kernel, family="ssd"):
    """State space duality by chunks of matrix products."""

    templates = (
        "ssd.py",
        "ssd_step_kernels.py",
        "ssd_tiles_kernels.py",
        "ssd_decay_kernels.py",
        "ssd_states_kernels.py",
        "ssd_kernels.py",
        "ssd_backward_kernels.py",
    )
    runtime = ("dispatch.py", "recompute.py", "ssd_chunks.py")
    n_heads: int
    d_head: int
    n_groups: int
    d_state: int
    chunk: int  # tokens that the plain form computes at once; FLOPs are counted by it on every device
    dt_min: str  # of a float
    dt_max: str

    @property
    def limits(self) -> tuple[str, ...]:
        """The bounds of dt that bound anything: the softplus alone is above 0."""
        return tuple(name for name, given in (("min", self.dt_min != "0.0"), ("max", self.dt_max != "inf")) if given)

    @property
    def heads_per_group(self) -> int:
        """Heads that share B and C."""
        return self.n_heads // self.n_groups

    @property
    def block_p(self) -> int:
        """`d_head` as the kernels hold it: a power of two, and no less than a matrix product takes."""
        return ssd.padded(self.d_head)

    @property
    def block_n(self) -> int:
        """`d_state` likewise."""
        return ssd.padded(self.d_state)

    @property
    def padded(self) -> bool:
        """Whether tiles are wider than what they hold."""
        return (self.block_p, self.block_n) != (self.d_head, self.d_state)

    @property
    def block(self) -> int:
        """Tokens of a block in 16 bits."""
        return ssd.block(self.d_head, self.d_state)

    blocks: int = ssd.BLOCKS  # between saved states
    halves: int = 1
    state_steps: int = 1
    states_stages: int = 3
    states_warps: int = 4
    output_warps: int = 4
    gradient_warps: int = 8

    @property
    def steps(self) -> int:
        return self.blocks * self.halves
