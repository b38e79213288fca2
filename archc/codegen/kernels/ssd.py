"""What a model fixes of Mamba-2's recurrence, and the tiles that its sizes ask for."""

from __future__ import annotations

from dataclasses import dataclass

from archc.codegen.kernels.kernel import Kernel
from archc.ops import ssd


@dataclass(frozen=True, kw_only=True)
class Ssd(Kernel, family="ssd"):
    """State space duality by chunks of matrix products.

    Sizes that `archc.ops.ssd.kernels` excludes have the plain torch form on every device, and the emitted file says so.
    """

    templates = (
        "ssd.py",
        "ssd_step_kernels.py",
        "ssd_tiles_kernels.py",
        "ssd_decay_kernels.py",
        "ssd_states_kernels.py",
        "ssd_kernels.py",
        "ssd_keys_kernels.py",
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
    def kernels(self) -> bool:
        """Whether there are Triton kernels."""
        return ssd.kernels(self.d_head, self.d_state)

    @property
    def files(self) -> dict[str, str]:
        """The template of each file."""
        return super().files if self.kernels else {f"{self.name}.py": "ssd.py"}

    @property
    def limits(self) -> tuple[str, ...]:
        """The bounds of dt that bound anything: the softplus alone is above 0."""
        return tuple(name for name, given in (("min", self.dt_min != "0.0"), ("max", self.dt_max != "inf")) if given)

    @property
    def heads_per_group(self) -> int:
        """Heads that share B and C."""
        return self.n_heads // self.n_groups

    @property
    def block(self) -> int:
        """Tokens of a block in 16 bits, half of that in 32: three tiles of it fit into registers."""
        return min(64, 8192 // max(self.d_head, self.d_state))

    @property
    def wide(self) -> bool:
        """Whether a state is too large for the registers of four warps."""
        return self.d_head * self.d_state > 8192

    @property
    def warps(self) -> int:
        """Of a program. Four that wait little for each other are better than eight."""
        return 8 if self.wide else 4

    @property
    def stages(self) -> int:
        """Blocks whose loads are under way at once where states are passed on, in 16 bits."""
        return 2 if self.wide else 3

    @property
    def output_registers(self) -> int:
        """Of a thread of forward's last kernel: 128 let four programs run on a multiprocessor."""
        return 255 if self.wide else 128
