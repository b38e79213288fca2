"""Public accelerators: memory, bandwidth and dense rates, as their makers state them.

Rates are peaks without sparsity; products of fp8, bf16 and tf32 run on tensor cores and add up in fp32, `vector` is
what everything else runs on. `memory` is what a driver reports as the device's total, which is a little less than the
nominal size. `cache` is the last level on the chip, `shared` what one block of threads may have of shared memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from archc.passes.workload import Dtype

KIB, MIB = 2**10, 2**20
GB = 10**9
TERA = 10**12


@dataclass(frozen=True, slots=True)
class Accelerator:
    """One device. Bytes, bytes per second and FLOP per second; `source` is where the figures come from."""

    name: str
    memory: int
    bandwidth: int
    tensor: Mapping[Dtype, int]
    vector: int
    cache: int = 0
    shared: int = 0
    source: str = "the command line"

    def rate(self, dtype: Dtype, *, matmul: bool) -> int:
        """FLOP per second of products or of anything else on numbers of `dtype`."""
        if not matmul:
            return self.vector if dtype != "fp64" else self.vector // 2
        return self.tensor.get(dtype) or self.vector


def _of(fp8: int, bf16: int, tf32: int) -> dict[Dtype, int]:
    """Rates in GFLOP/s; a device without fp8 multiplies it as bf16."""
    return {"fp8": (fp8 or bf16) * GB, "bf16": bf16 * GB, "fp16": bf16 * GB, "fp32": tf32 * GB}


NVIDIA = "https://www.nvidia.com/en-us/data-center"
TABLE = (
    Accelerator(
        "a100",
        81920 * MIB,
        2039 * GB,
        _of(0, 312_000, 156_000),
        19_500 * GB,
        40 * MIB,
        163 * KIB,
        f"{NVIDIA}/a100/ (SXM, 80 GB)",
    ),
    Accelerator(
        "a100-40gb",
        40960 * MIB,
        1555 * GB,
        _of(0, 312_000, 156_000),
        19_500 * GB,
        40 * MIB,
        163 * KIB,
        "https://images.nvidia.com/aem-dam/en-zz/Solutions/data-center/nvidia-ampere-architecture-whitepaper.pdf",
    ),
    Accelerator(
        "h100",
        81559 * MIB,
        3350 * GB,
        _of(1_978_900, 989_400, 494_700),
        66_900 * GB,
        50 * MIB,
        227 * KIB,
        "https://resources.nvidia.com/en-us-tensor-core/gtc22-whitepaper-hopper (SXM5)",
    ),
    Accelerator(
        "h100-pcie",
        81559 * MIB,
        2039 * GB,
        _of(1_513_000, 756_000, 378_000),
        51_200 * GB,
        50 * MIB,
        227 * KIB,
        "https://resources.nvidia.com/en-us-tensor-core/gtc22-whitepaper-hopper (PCIe)",
    ),
    Accelerator(
        "h200",
        143771 * MIB,
        4800 * GB,
        _of(1_978_900, 989_400, 494_700),
        66_900 * GB,
        50 * MIB,
        227 * KIB,
        f"{NVIDIA}/h200/ (SXM)",
    ),
    Accelerator(
        "b200",
        183359 * MIB,
        8000 * GB,
        _of(4_500_000, 2_250_000, 1_100_000),
        80_000 * GB,
        126 * MIB,
        227 * KIB,
        "https://resources.nvidia.com/en-us-blackwell-architecture (HGX)",
    ),
    Accelerator(
        "l40s",
        46068 * MIB,
        864 * GB,
        _of(733_000, 362_050, 183_000),
        91_600 * GB,
        96 * MIB,
        99 * KIB,
        f"{NVIDIA}/l40s/",
    ),
    Accelerator(
        "l4",
        23034 * MIB,
        300 * GB,
        _of(242_500, 121_000, 60_000),
        30_300 * GB,
        48 * MIB,
        99 * KIB,
        f"{NVIDIA}/l4/",
    ),
    Accelerator(
        "rtx4090",
        24564 * MIB,
        1008 * GB,
        _of(330_300, 165_200, 82_600),
        82_600 * GB,
        72 * MIB,
        99 * KIB,
        "https://images.nvidia.com/aem-dam/Solutions/geforce/ada/nvidia-ada-gpu-architecture.pdf",
    ),
    Accelerator(
        "mi300x",
        196592 * MIB,
        5300 * GB,
        _of(2_614_900, 1_307_400, 653_700),
        163_400 * GB,
        256 * MIB,
        64 * KIB,
        "https://www.amd.com/en/products/accelerators/instinct/mi300/mi300x.html",
    ),
)
ACCELERATORS = {device.name: device for device in TABLE}
