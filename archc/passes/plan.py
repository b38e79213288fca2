"""How a model is spread over devices, and what a step of training keeps beside its weights.

A plan is a grid of tp x cp x fsdp x dp x pp devices. Dense weights are cut by tp and, where fsdp > 1, sharded over the
fsdp x cp devices of a group; dp copies them. Experts are spread over ep devices of the same stage, whole each, instead
of being cut by tp; what ep leaves of the sharding devices shards them further. pp cuts the stack into equal stages.
Activations are cut by tp too: norms and the stream run on a share of the sequence, as Megatron's sequence parallelism.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import gcd
from typing import Literal

from archc.passes.workload import DTYPE_BYTES, Dtype

OptimizerName = Literal["adamw", "adamw8bit", "muon", "sgd"]
Recompute = Literal["none", "selective", "full"]
BLOCK = 256  # elements that share a scale in each 8-bit moment, and
UNQUANTISED = 4096  # elements below which a tensor's moments stay in fp32: both as bitsandbytes has them


@dataclass(frozen=True, slots=True)
class Plan:
    """Degrees of parallelism, 1 where there is none. Raises ValueError for a degree below 1 or ep that has no place."""

    tp: int = 1
    pp: int = 1
    cp: int = 1
    ep: int = 1
    dp: int = 1
    fsdp: int = 1

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) < 1:
                raise ValueError(f"--{field.name} is at least 1")
        if self.stage_devices % self.ep:
            raise ValueError(
                f"--ep {self.ep} does not divide the {self.stage_devices} devices of a stage (tp x cp x fsdp x dp)"
            )

    @property
    def stage_devices(self) -> int:
        """Devices that hold one pipeline stage."""
        return self.tp * self.cp * self.fsdp * self.dp

    @property
    def n_devices(self) -> int:
        return self.stage_devices * self.pp

    @property
    def shards(self) -> int:
        """Devices that share one copy of what tp leaves of a dense weight."""
        return self.fsdp * self.cp if self.fsdp > 1 else 1

    @property
    def expert_divisor(self) -> int:
        """Devices that share one copy of a stage's experts."""
        if self.ep == 1:
            return self.tp * self.shards
        sharding = self.tp * self.shards if self.fsdp > 1 else 1
        return self.ep * (sharding // gcd(sharding, self.ep))

    @property
    def sequence_divisor(self) -> int:
        """Devices that share one sequence's activations."""
        return self.tp * self.cp

    @property
    def text(self) -> str:
        """`tp 8 x fsdp 32`, or `one device`."""
        parts = [f"{f.name} {getattr(self, f.name)}" for f in fields(self) if getattr(self, f.name) > 1]
        return ", ".join(parts) or "one device"


@dataclass(frozen=True, slots=True)
class Training:
    """A step of training: what is kept for each parameter, and what is computed twice.

    `grad_dtype` is what gradients add up in over passes, `master_dtype` what the optimizer moves; a parameter that is
    no narrower than that is its own master. `accumulation` passes make one update.
    """

    optimizer: OptimizerName = "adamw"
    grad_dtype: Dtype = "fp32"
    master_dtype: Dtype = "fp32"
    recompute: Recompute = "none"
    accumulation: int = 1

    def optimizer_bytes(self, elements: int, *, matrix: bool) -> int:
        """State of a tensor of so many elements on one device. `matrix`: of two dimensions, and not of the vocabulary.

        AdamW has two moments, its 8-bit form (arXiv:2110.02861) two of a byte and a scale for each block; SGD and, for
        matrices, Muon (arXiv:2502.16982) one.
        """
        full = DTYPE_BYTES["fp32"]
        if self.optimizer == "sgd" or (self.optimizer == "muon" and matrix):
            return full * elements
        if self.optimizer == "adamw8bit" and elements >= UNQUANTISED:
            return 2 * (elements + full * -(-elements // BLOCK))
        return 2 * full * elements
