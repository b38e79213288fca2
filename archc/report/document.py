"""The report as data: the tables of an analysis in the published schema."""

from __future__ import annotations

import json
from typing import Any

from archc.passes.flops import TRAINING_FACTOR
from archc.passes.params import Tensor
from archc.report.analysis import Analysis, per_token
from archc.report.conventions import conventions
from archc.report.names import FOREIGN
from archc.report.schema import (
    AnalysisDocument,
    FlopInfo,
    GroupInfo,
    ModelInfo,
    ParameterInfo,
    StateInfo,
    TensorInfo,
    WorkloadInfo,
)
from archc.report.sizing import Sizing
from archc.report.sizing_document import sizing_info


def to_json(analysis: Analysis, sizing: Sizing | None, version: str) -> str:
    """The document of an analysis by archc `version`, as indented JSON with a line end."""
    return document(analysis, sizing, version).model_dump_json(indent=2) + "\n"


def json_schema() -> str:
    """The JSON Schema of that document."""
    schema: dict[str, Any] = AnalysisDocument.model_json_schema()
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}, indent=2) + "\n"


def document(analysis: Analysis, sizing: Sizing | None, version: str) -> AnalysisDocument:
    sizes = {name for name, _ in analysis.outline.sizes} | {"n_layers", "context", "tied", "residual_fp32"}
    return AnalysisDocument(
        archc=version,
        model=_model(analysis),
        workload=_workload(analysis),
        parameters=_parameters(analysis),
        state=_state(analysis),
        flops=_flops(analysis),
        groups=_groups(analysis),
        sizing=sizing_info(sizing, analysis.workload) if sizing else None,
        names={name: foreign._asdict() for name, foreign in FOREIGN.items() if name in sizes},
        conventions=list(conventions(analysis, sizing)),
    )


def _model(analysis: Analysis) -> ModelInfo:
    outline = analysis.outline
    return ModelInfo(
        name=outline.name,
        n_layers=outline.n_layers,
        d_model=outline.d_model,
        vocab=outline.vocab,
        context=outline.context,
        tied=outline.tied,
        residual_fp32=outline.residual_fp32,
        stack=outline.text,
        sizes={name: list(values) for name, values in outline.sizes},
        defaults=list(analysis.defaults),
    )


def _workload(analysis: Analysis) -> WorkloadInfo:
    workload = analysis.workload
    return WorkloadInfo(
        context=workload.context,
        batch=workload.batch,
        dtype=workload.dtype,
        weight_dtype=workload.weights,
        kv_dtype=workload.kv_dtype,
        state_dtype=workload.state_dtype,
    )


def _parameters(analysis: Analysis) -> ParameterInfo:
    params = analysis.params
    return ParameterInfo(
        total=params.total,
        active=params.active,
        unrolled=params.unrolled,
        routed=params.routed,
        embedding=params.embedding,
        head=params.head,
        total_without_embedding=params.total - params.embedding,
        active_without_embedding=params.active - params.embedding,
        weight_bytes=params.weight_bytes,
        tensors=[_tensor(tensor, group.name) for group in params.groups for tensor in group.tensors],
    )


def _tensor(tensor: Tensor, group: str) -> TensorInfo:
    return TensorInfo(
        name=tensor.name,
        group=group,
        axes=list(tensor.axes),
        shape=list(tensor.shape),
        count=tensor.times,
        active_share=str(tensor.active_share),
        weight_decay=tensor.decay,
        keep_fp32=tensor.keep_fp32,
    )


def _state(analysis: Analysis) -> StateInfo:
    state = analysis.state.total
    return StateInfo(
        kv_elements_per_token=state.kv_per_token.elements,
        kv_bytes_per_token=state.kv_per_token.n_bytes,
        kv_bytes=state.kv.n_bytes,
        kv_bytes_without_windows=state.kv_unwindowed.n_bytes,
        ssm_state_elements=state.ssm.elements,
        ssm_state_bytes=state.ssm.n_bytes,
        conv_state_elements=state.conv.elements,
        conv_state_bytes=state.conv.n_bytes,
        conv_state_elements_d_conv=state.conv_wide.elements,
        conv_state_bytes_d_conv=state.conv_wide.n_bytes,
        total_bytes=analysis.state_bytes,
    )


def _flops(analysis: Analysis) -> FlopInfo:
    batch, kernels = analysis.workload.batch, analysis.kernel_flops.total
    return FlopInfo(
        model_forward=analysis.model_flops,
        model_forward_per_token=analysis.model_flops_per_token,
        model_training_per_token=per_token(TRAINING_FACTOR * analysis.flops.total.model, analysis.workload),
        convention=analysis.convention,
        training_per_token=analysis.training_flops_per_token,
        kernel_forward=kernels.forward // batch,
        kernel_backward=kernels.backward // batch,
        decode_step=analysis.flops.total.decode // batch,
    )


def _groups(analysis: Analysis) -> list[GroupInfo]:
    batch = analysis.workload.batch
    tables = (analysis.params.groups, analysis.state.groups, analysis.flops.groups, analysis.kernel_flops.groups)
    return [
        GroupInfo(
            name=params.name,
            count=params.times,
            parameters=params.total,
            active_parameters=params.active,
            kv_bytes_per_token=state.kv_per_token.n_bytes,
            kv_bytes=state.kv.n_bytes,
            ssm_state_bytes=state.ssm.n_bytes,
            conv_state_bytes=state.conv.n_bytes,
            model_forward_flops=flops.model // batch,
            kernel_forward_flops=kernels.forward // batch,
            kernel_backward_flops=kernels.backward // batch,
            decode_step_flops=flops.decode // batch,
        )
        for params, state, flops, kernels in zip(*tables, strict=True)
    ]
