"""What a model takes on devices, as data in the published schema."""

from __future__ import annotations

from dataclasses import asdict

from archc.passes.accelerators import Accelerator
from archc.passes.memory import Amount
from archc.passes.roofline import Roofline
from archc.passes.workload import Workload
from archc.report.schema import BoundInfo, BytesInfo, DeviceInfo, OpInfo, PhaseInfo, PlanInfo, PointInfo, SizingInfo
from archc.report.sizing import Request, Sized, Sizing


def sizing_info(sizing: Sizing, workload: Workload) -> SizingInfo:
    request = sizing.request
    return SizingInfo(
        capacity_bytes=request.capacity,
        device=_device(request.device, workload) if request.device else None,
        plan=PlanInfo(**asdict(request.plan), devices=request.plan.n_devices, **asdict(request.training)),
        phases=[_phase(sized, request) for sized in sizing.phases],
        curve=[
            PointInfo(context=p.context, weight_bytes=p.weights, kv_bytes=p.kv, recurrent_bytes=p.recurrent)
            for p in sizing.curve
        ],
    )


def _device(device: Accelerator, workload: Workload) -> DeviceInfo:
    return DeviceInfo(
        name=device.name,
        memory_bytes=device.memory,
        bandwidth_bytes_per_second=device.bandwidth,
        tensor_flops_per_second=device.rate(workload.dtype, matmul=True),
        vector_flops_per_second=device.rate(workload.dtype, matmul=False),
        source=device.source,
    )


def _phase(sized: Sized, request: Request) -> PhaseInfo:
    memory, capacity = sized.memory, request.capacity
    return PhaseInfo(
        phase=sized.phase,
        stage=memory.stage,
        parts=_amounts(memory.parts),
        moments=_amounts(memory.moments),
        peak_bytes=memory.peak.n_bytes,
        fits=None if capacity is None else memory.peak.n_bytes <= capacity,
        largest_context=sized.largest_context,
        largest_batch=sized.largest_batch,
        bounds=_bounds(sized.roofline) if sized.roofline else [],
        ops=_ops(sized) if request.ops else [],
    )


def _amounts(amounts: tuple[Amount, ...]) -> list[BytesInfo]:
    return [BytesInfo(name=amount.name, bytes=amount.n_bytes) for amount in amounts]


def _bounds(roofline: Roofline) -> list[BoundInfo]:
    return [
        BoundInfo(
            name=bound.name,
            seconds=float(bound.seconds),
            compute_seconds=float(bound.compute),
            memory_seconds=float(bound.memory),
            limit=bound.limit,
        )
        for bound in (*roofline.groups, roofline.total)
    ]


def _ops(sized: Sized) -> list[OpInfo]:
    return [
        OpInfo(
            group=group.name,
            uses=group.times,
            scope=op.scope,
            op=op.label,
            model_flops=op.each.model_flops,
            kernel_flops=op.each.flops,
            read_bytes=op.each.read,
            written_bytes=op.each.written,
        )
        for group in sized.costs.groups
        for op in group.ops
    ]
