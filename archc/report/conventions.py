"""What the numbers of a report mean, in sentences that stand under it."""

from __future__ import annotations

from archc.passes.flops import TRAINING_FACTOR
from archc.passes.workload import DTYPE_BYTES
from archc.report.analysis import Analysis


def conventions(analysis: Analysis) -> tuple[str, ...]:
    """One sentence for each convention behind the numbers of `analysis`."""
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
    return tuple(lines)
