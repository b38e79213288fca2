"""What the numbers of a report mean, in sentences that stand under it."""

from __future__ import annotations

from collections.abc import Iterator

from archc.passes.flops import TRAINING_FACTOR
from archc.passes.memory import PREFILL_CHUNK
from archc.passes.workload import DTYPE_BYTES
from archc.report.analysis import Analysis
from archc.report.sizing import Sizing


def conventions(analysis: Analysis, sizing: Sizing | None = None) -> tuple[str, ...]:
    """One sentence for each convention behind the numbers of a report."""
    workload, state = analysis.workload, analysis.state.total
    lines = ["Parameters are counted as stored, a tied head once."]
    if analysis.params.routed:
        lines.append(
            "Active = total - (1 - k/E) x routed expert parameters, embedding and head included. "
            "Memory follows total, compute follows active."
        )
    if analysis.params.unrolled != analysis.params.total:
        lines.append(
            "A shared module is stored once for each of its copies; it computes and keeps state once for each use, and "
            "these stand with the layers that use it. Unrolled parameters count it for each use."
        )
    if any(tensor.keep_fp32 for tensor in analysis.params.tensors) and DTYPE_BYTES[workload.dtype] < 4:
        lines.append("Weight bytes hold the tensors that are kept in fp32 as fp32.")
    if state.kv.elements:
        window = ", and no layer holds more than its window" if state.kv != state.kv_unwindowed else ""
        lines.append(f"KV bytes are for one sequence at the whole context{window}.")
    if state.conv.elements:
        lines.append(
            "Conv state has d_conv - 1 columns, as the generated cache; mamba_ssm and transformers hold d_conv."
        )
    lines += [
        "A multiply-add is 2 FLOPs; causal attention counts the visible pairs exactly; look-ups, norms and pointwise "
        "operations count nothing.",
        f"Training FLOPs are {TRAINING_FACTOR} x forward, as MFU is usually reckoned; kernel FLOPs are what the "
        "generated kernels execute, recomputation in backward included.",
        f"A decode step is the last token of the context, after {workload.context - 1:,} others.",
    ]
    return (*lines, *(_of_devices(analysis, sizing) if sizing else ()))


def _of_devices(analysis: Analysis, sizing: Sizing) -> Iterator[str]:
    request, training = sizing.request, sizing.request.training
    yield (
        "Memory is that of the worst device at its worst moment; parts are not all there at once. The device's own "
        "context, the allocator's fragments and buffers of communication come on top."
    )
    if "train" in request.phases:
        yield (
            f"A training step: {training.optimizer}, gradients added up in {training.grad_dtype}, masters in "
            f"{training.master_dtype}, recompute {training.recompute}, "
            f"{training.accumulation} x {analysis.workload.batch} sequences an update and replica."
        )
    if "prefill" in request.phases:
        yield f"A prefill runs {PREFILL_CHUNK:,} tokens at once; logits are made of all of them."
    if request.device is not None:
        yield (
            f"Times are lower bounds on {request.device.name} ({request.device.source}): peak rates, every byte moved "
            "once, ops one after the other, no time for communication or waiting, experts as unevenly used as can be."
        )
