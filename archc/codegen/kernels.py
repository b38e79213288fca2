"""The kernel families: what a model fixes of each (a frozen view), and the files that this gives.

A template is Python as it stands once its `{{ holes }}` are filled: options are line statements (`#% if gate`), which
Python takes for comments. Everything that a template asks for is a field or a property of its view; nothing is computed
in the template, and nothing is left to decide when the emitted file runs except what one model does both ways
(packed documents or not, a state or none, dtypes).
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import ClassVar

import jinja2


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """One file of operations, the name of its public function, and the template files that print it."""

    templates: ClassVar[tuple[str, ...]]  # a file's name is `name`, then the template's suffix
    runtime: ClassVar[tuple[str, ...]]  # the files of `runtime/` that it imports
    name: str

    @property
    def files(self) -> dict[str, str]:
        """The template of each file."""
        family = self.templates[0].removesuffix(".py")
        return {self.name + file.removeprefix(family): file for file in self.templates}


@dataclass(frozen=True, kw_only=True)
class SelectiveScan(Kernel):
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
    runtime = ("dispatch.py", "recurrence.py")
    name: str = "selective_scan"
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
        """Whether lane programs serve it: 4 lanes of 4 states a channel, and a warp's 16 channels or none."""
        return self.d_state == 16 and self.d_inner % 16 == 0

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
        """Tokens between saved states: lanes derive the states of a chunk into scratch that should stay in cache."""
        return 32 if self.lanes else 64

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
        """One more than the last of the sums of a token that backward makes for its owner, counted from 2."""
        return 5 if self.gate else 4

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


@dataclass(frozen=True, kw_only=True)
class CausalConv1d(Kernel):
    """A depthwise causal convolution, with SiLU or not. FLOPs are expressions over B, T, channels and d_conv."""

    templates = ("causal_conv1d.py", "causal_conv1d_kernels.py", "causal_conv1d_backward_kernels.py")
    runtime = ("dispatch.py",)
    name: str = "causal_conv1d"
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
    return {file: _render(template, view) for file, template in view.files.items()}


def _render(file: str, view: Kernel) -> str:
    names = {name for name in dir(view) if not name.startswith("_")}
    return _environment().get_template(f"kernels/{file}.jinja").render({name: getattr(view, name) for name in names})


@functools.cache
def _environment() -> jinja2.Environment:
    package = jinja2.PackageLoader("archc.codegen")

    def load(name: str) -> str:
        # Jinja's own line statements swallow the blank lines that follow them.
        source = package.get_source(environment, name)[0]
        return re.sub(r"^ *#% *(.*)$", r"{% \1 %}", source, flags=re.MULTILINE)

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(load),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    return environment
