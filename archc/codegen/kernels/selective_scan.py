"""What a model fixes of Mamba's scan."""

from __future__ import annotations

from dataclasses import dataclass

from archc.codegen.kernels.kernel import Kernel
from archc.codegen.kernels.tiles import table
from archc.ops import scan


@dataclass(frozen=True, kw_only=True)
class SelectiveScan(Kernel, family="selective_scan"):
    """Mamba's scan with its pointwise neighbours. FLOPs are expressions over B, T, d_inner and d_state.

    There are two sets of kernels for whole sequences: lane programs, faster, for the sizes that `lanes` says, and plain
    tiles for all others. The choice is made here, once for an architecture, and the emitted file says which it was.
    """

    templates = (
        "selective_scan.py",
        "selective_scan_step_kernels.py",
        "selective_scan_kernels.py",
        "selective_scan_backward_kernels.py",
    )
    runtime = ("dispatch.py", "recompute.py", "recurrence.py")
    d_inner: int
    d_state: int
    gate: bool  # y * silu(z)
    skip: bool  # y + D * x
    dt_bias: bool
    dt_softplus: bool
    flops_forward: str
    flops_backward: str
    steps: int = 4  # tokens whose inputs forward loads together: one latency for all
    backward_steps: int = 2  # tokens whose states backward holds in registers: 4 spill

    @property
    def lanes(self) -> bool:
        """Whether lane programs serve it."""
        return scan.lanes(self.d_inner, self.d_state)

    @property
    def files(self) -> dict[str, str]:
        """The template of each file."""
        if not self.lanes:
            return super().files
        return super().files | {
            f"{self.name}_lanes_kernels.py": "selective_scan_lanes_kernels.py",
            f"{self.name}_kernels.py": "selective_scan_lanes_forward_kernels.py",
            f"{self.name}_lanes_reverse_kernels.py": "selective_scan_lanes_reverse_kernels.py",
            f"{self.name}_backward_kernels.py": "selective_scan_lanes_backward_kernels.py",
        }

    @property
    def chunk(self) -> int:
        """Tokens between saved states."""
        return scan.chunk(self.d_inner, self.d_state)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The tensors of the signature, in order."""
        options = {"D": self.skip, "z": self.gate, "dt_bias": self.dt_bias}
        return ("x", "dt", "A_log", "B", "C", *(name for name, present in options.items() if present))

    @property
    def activations(self) -> tuple[str, ...]:
        """The inputs `[B, T, ...]`, which may be strided views."""
        return ("x", "dt", "B", "C", *(("z",) if self.gate else ()))

    @property
    def streams(self) -> tuple[str, ...]:
        """The activations with a value for each channel."""
        return tuple(name for name in self.activations if name not in ("B", "C"))

    @property
    def lane_inputs(self) -> tuple[str, ...]:
        """The inputs that the lane programs take as they are; B and C they take widened."""
        return tuple(name for name in self.inputs if name not in ("B", "C"))

    @property
    def own_sums(self) -> int:
        """The sums of a token over states that backward makes for its owner."""
        return 3 if self.gate else 2

    @property
    def plans(self) -> tuple[str, ...]:
        """The rows of the lane programs' tile table, as arguments."""
        rows = table(self.target)["selective_scan"]
        return tuple(", ".join(map(_number, row.values())) for row in rows)

    @property
    def plans_origin(self) -> str:
        """Where that table comes from."""
        return f"{self.target}: {table(self.target)['origin']}"

    @property
    def single_token(self) -> str:
        """The distances between the tokens of the activations when there is one."""
        return ", ".join("0" for _ in self.activations)

    @property
    def block_n(self) -> int:
        """`d_state` as the kernels hold it: a power of two."""
        return 1 << (self.d_state - 1).bit_length()

    @property
    def block_d(self) -> int:
        """Channels of a program: 512 states in one warp, 16 registers a thread, but no more channels than threads."""
        return max(1, min(32, 512 // self.block_n))


def _number(value: float | None) -> str:
    return 'float("inf")' if value is None else repr(value)
