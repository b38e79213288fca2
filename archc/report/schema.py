"""The published schema of `archc analyze --json`. A change of meaning or shape raises its `version`.

All counts are exact integers, also where they pass 2^53; read them with a parser that keeps integers.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Part(BaseModel):
    """Any object of the document: fixed fields, no others."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelInfo(Part):
    """What the spec describes."""

    name: str
    n_layers: int
    d_model: int
    vocab: int
    context: int | None = Field(description="longest context in tokens, if the spec gives one")
    tied: bool = Field(description="the head uses the embedding's weight")
    residual_fp32: bool = Field(description="the residual stream is kept in fp32")
    stack: str = Field(description="the layers, rolled, in archc's language")
    sizes: dict[str, list[int]] = Field(description="named axes and all sizes that they have in this model")
    defaults: list[str] = Field(description="defaults in force that the spec leaves open")


class WorkloadInfo(Part):
    """What the numbers were asked for."""

    context: int = Field(description="tokens of each sequence")
    batch: int = Field(description="sequences")
    dtype: str = Field(description="of weights, activations and conv state")
    weight_dtype: str = Field(description="of weights, if they are stored otherwise")
    kv_dtype: str
    state_dtype: str


class TensorInfo(Part):
    """One stored tensor of every layer of its group, or of every copy of a shared module."""

    name: str = Field(description="canonical name; * stands for the index of a layer or of a shared module's copy")
    group: str
    axes: list[str]
    shape: list[int]
    count: int = Field(description="how many layers or copies own such a tensor")
    active_share: str = Field(description='share that one token uses: "1", or "1/8" of a routed expert\'s weight')
    weight_decay: bool
    keep_fp32: bool


class ParameterInfo(Part):
    """Parameter counts. active = total - (1 - k/E) x routed."""

    total: int
    active: int
    unrolled: int = Field(description="shared modules counted once for each use; total if there are none")
    routed: int = Field(description="parameters of all routed experts")
    embedding: int
    head: int = Field(description="0 if tied to the embedding")
    total_without_embedding: int
    active_without_embedding: int
    weight_bytes: int = Field(description="in dtype, tensors that stay in fp32 as fp32")
    tensors: list[TensorInfo]


class StateInfo(Part):
    """What one sequence keeps at the end of the context."""

    kv_elements_per_token: int = Field(description="while no window is full")
    kv_bytes_per_token: int
    kv_bytes: int = Field(description="at the context, windows respected")
    kv_bytes_without_windows: int
    ssm_state_elements: int
    ssm_state_bytes: int
    conv_state_elements: int = Field(description="d_conv - 1 columns, the layout of the generated cache")
    conv_state_bytes: int
    conv_state_elements_d_conv: int = Field(description="d_conv columns, the layout of mamba_ssm and transformers")
    conv_state_bytes_d_conv: int
    total_bytes: int = Field(description="kv_bytes + ssm_state_bytes + conv_state_bytes")


class FlopInfo(Part):
    """FLOPs; a multiply-add is 2. Per sequence unless the name says otherwise."""

    model_forward: int
    model_forward_per_token: int = Field(description="mean over the sequence, rounded")
    model_training_per_token: int = Field(description="3 x forward, rounded")
    convention: str = Field(description="whose count training_per_token is")
    training_per_token: int = Field(description="forward and backward as the convention counts, rounded")
    kernel_forward: int
    kernel_backward: int
    decode_step: int = Field(description="model FLOPs of the last token of the context")


class GroupInfo(Part):
    """One row of the report: the embedding, a distinct layer with all its repeats, a shared module, or norm and head.

    A shared module has parameters alone: its FLOPs and state belong to the layers that use it.
    """

    name: str
    count: int = Field(description="layers; copies of a shared module")
    parameters: int
    active_parameters: int
    kv_bytes_per_token: int
    kv_bytes: int
    ssm_state_bytes: int
    conv_state_bytes: int
    model_forward_flops: int
    kernel_forward_flops: int
    kernel_backward_flops: int
    decode_step_flops: int


class DeviceInfo(Part):
    """The device that was asked for. Rates are dense peaks per second."""

    name: str
    memory_bytes: int
    bandwidth_bytes_per_second: int
    tensor_flops_per_second: int = Field(description="of matrix products on numbers of the workload's dtype")
    vector_flops_per_second: int
    source: str


class PlanInfo(Part):
    """Degrees of parallelism, and what a step of training keeps."""

    tp: int
    pp: int
    cp: int
    ep: int
    dp: int
    fsdp: int
    devices: int
    optimizer: str
    grad_dtype: str
    master_dtype: str
    recompute: str
    accumulation: int = Field(description="passes in an update")


class BytesInfo(Part):
    """Bytes of one device: of a part, or at a moment."""

    name: str
    bytes: int


class BoundInfo(Part):
    """A lower bound of time. `limit` says whether FLOPs or bytes take longer."""

    name: str
    seconds: float
    compute_seconds: float
    memory_seconds: float
    limit: Literal["compute", "memory"]


class OpInfo(Part):
    """One op of a group: what one use costs after fusion."""

    group: str
    uses: int
    scope: str
    op: str
    model_flops: int
    kernel_flops: int = Field(description="backward included in training")
    read_bytes: int
    written_bytes: int


class PhaseInfo(Part):
    """One phase on one device: of the worst pipeline stage, at its worst moment."""

    phase: Literal["train", "prefill", "decode"]
    stage: int = Field(description="the worst pipeline stage, from 0")
    parts: list[BytesInfo]
    moments: list[BytesInfo]
    peak_bytes: int
    fits: bool | None = Field(description="null without a limit")
    largest_context: int | None = Field(
        description="tokens, at the workload's batch; 0: none fits; null without a limit"
    )
    largest_batch: int | None = Field(description="sequences, at the workload's context")
    bounds: list[BoundInfo] = Field(description="a row for each layer group, then the total; empty without a device")
    ops: list[OpInfo] = Field(description="empty unless asked for")


class PointInfo(Part):
    """Bytes of one device over the context."""

    context: int
    weight_bytes: int
    kv_bytes: int
    recurrent_bytes: int


class SizingInfo(Part):
    """What the model takes on devices."""

    capacity_bytes: int | None = Field(description="the limit that was given, or the device's memory")
    device: DeviceInfo | None
    plan: PlanInfo
    phases: list[PhaseInfo]
    curve: list[PointInfo] = Field(description="empty unless asked for")


class AnalysisDocument(Part):
    """The document that `archc analyze --json` prints."""

    format: Literal["archc-analysis"] = "archc-analysis"
    version: Literal[3] = 3
    archc: str = Field(description="version of archc that wrote this")
    model: ModelInfo
    workload: WorkloadInfo
    parameters: ParameterInfo
    state: StateInfo
    flops: FlopInfo
    groups: list[GroupInfo]
    sizing: SizingInfo | None = Field(description="null unless devices, a plan, a mode or a limit were asked about")
    names: dict[str, dict[str, str]] = Field(description="our names of sizes to those of Hugging Face and mamba_ssm")
    conventions: list[str]
