"""The kernel families: what a model fixes of each (a frozen view), and the files that this gives.

A template is Python as it stands once its `{{ holes }}` are filled: options are line statements (`#% if gate`), which
Python takes for comments. Everything that a template asks for is a field or a property of its view; nothing is computed
in the template, and nothing is left to decide when the emitted file runs except what one model does both ways
(packed documents or not, a state or none, dtypes).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import ClassVar

import jinja2


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """One file of operations, the name of its public function, and the template files that print it."""

    templates: ClassVar[tuple[str, ...]]  # a file's name is `name`, then the template's suffix
    runtime: ClassVar[tuple[str, ...]]  # the files of `runtime/` that it imports
    name: str


@dataclass(frozen=True, kw_only=True)
class SelectiveScan(Kernel):
    """Mamba's scan with its pointwise neighbours. FLOPs are expressions over B, T, d_inner and d_state."""

    templates = ("selective_scan.py", "selective_scan_kernels.py", "selective_scan_backward_kernels.py")
    runtime = ("dispatch.py", "recurrence.py")
    name: str = "selective_scan"
    d_state: int
    gate: bool  # y * silu(z)
    skip: bool  # y + D * x
    dt_bias: bool
    dt_softplus: bool
    flops_forward: str
    flops_backward: str

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
    def load_arguments(self) -> str:
        """What the kernels give to `load_tokens`: pointers with the distance between tokens."""
        return ", ".join(f"{name}_ptr, {name}_t" for name in self.activations) + (", bias" if self.dt_bias else "")

    @property
    def step_arguments(self) -> str:
        """The same for a single token."""
        return ", ".join(f"{name}_ptr, 0" for name in self.activations) + (", bias" if self.dt_bias else "")

    @property
    def block_n(self) -> int:
        """`d_state` as the kernels hold it: a power of two."""
        return 1 << (self.d_state - 1).bit_length()

    @property
    def block_d(self) -> int:
        """Channels of a program: 512 states in one warp, 16 registers a thread, but no more channels than threads."""
        return max(1, min(32, 512 // self.block_n))

    @property
    def steps(self) -> int:
        """Tokens whose inputs forward loads together, which hides the latency of all loads but the first."""
        return 4

    @property
    def backward_steps(self) -> int:
        """Tokens whose states and decays backward holds in registers at once."""
        return 4


@dataclass(frozen=True, kw_only=True)
class CausalConv1d(Kernel):
    """A depthwise causal convolution, with SiLU or not. FLOPs are expressions over B, T, channels and d_conv."""

    templates = ("causal_conv1d.py", "causal_conv1d_kernels.py")
    runtime = ("dispatch.py",)
    name: str = "causal_conv1d"
    width: int
    bias: bool
    silu: bool
    flops_forward: str
    flops_backward: str


@dataclass(frozen=True, kw_only=True)
class RmsNorm(Kernel):
    """RMSNorm, alone and after a residual addition."""

    templates = ("rms_norm.py", "rms_norm_kernels.py")
    runtime = ("dispatch.py",)
    name: str = "rms_norm"


@dataclass(frozen=True, kw_only=True)
class Swiglu(Kernel):
    """silu(gate) * up."""

    templates = ("swiglu.py", "swiglu_kernels.py")
    runtime = ("dispatch.py",)
    name: str = "swiglu"


def render(view: Kernel) -> dict[str, str]:
    """The files of one kernel family, by name."""
    family = view.templates[0].removesuffix(".py")
    return {view.name + file.removeprefix(family): _render(file, view) for file in view.templates}


def _render(file: str, view: Kernel) -> str:
    names = {name for name in dir(view) if not name.startswith("_")}
    return _environment().get_template(f"kernels/{file}.jinja").render({name: getattr(view, name) for name in names})


@functools.cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("archc.codegen"),
        undefined=jinja2.StrictUndefined,
        line_statement_prefix="#%",
        keep_trailing_newline=True,
        autoescape=False,
    )
