"""What was analysed beside what was measured, and the document that says so."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from archc import units
from archc.report.schema import Part


@dataclass(frozen=True, slots=True)
class Comparison:
    """One figure, which is exact: the two are equal, or one of them is wrong."""

    figure: str
    unit: str
    analysed: int
    measured: int

    @property
    def equal(self) -> bool:
        return self.analysed == self.measured


@dataclass(frozen=True, slots=True)
class MeasuredStep:
    """Training steps on a device, beside their prediction, which is not exact."""

    device: str
    recompute: str
    predicted_bytes: int
    peak_bytes: int
    step_seconds: float
    bound_seconds: float | None  # if the device is in the table


@dataclass(frozen=True, slots=True)
class Verification:
    """A model as analysed and as built."""

    model: str
    batch: int
    context: int
    dtype: str
    comparisons: tuple[Comparison, ...]
    step: MeasuredStep | None

    @property
    def equal(self) -> bool:
        return all(comparison.equal for comparison in self.comparisons)


class ComparisonInfo(Part):
    """One exact figure."""

    figure: str
    unit: str
    analysed: int
    measured: int
    equal: bool


class StepInfo(Part):
    """Training steps on a CUDA device."""

    device: str
    recompute: str
    predicted_peak_bytes: int
    measured_peak_bytes: int = Field(description="torch.cuda.max_memory_allocated over whole training steps")
    measured_step_seconds: float = Field(description="median")
    lower_bound_seconds: float | None


class VerificationDocument(Part):
    """The document that `archc analyze --verify --json` prints."""

    format: Literal["archc-verification"] = "archc-verification"
    version: Literal[1] = 1
    archc: str = Field(description="version of archc that wrote this")
    model: str
    batch: int
    context: int
    dtype: str
    equal: bool
    comparisons: list[ComparisonInfo]
    step: StepInfo | None = Field(description="null without a CUDA device that the training step fits")


def to_json(verification: Verification, version: str) -> str:
    """The document as JSON text."""
    exact = [
        ComparisonInfo(figure=c.figure, unit=c.unit, analysed=c.analysed, measured=c.measured, equal=c.equal)
        for c in verification.comparisons
    ]
    return VerificationDocument(
        archc=version,
        model=verification.model,
        batch=verification.batch,
        context=verification.context,
        dtype=verification.dtype,
        equal=verification.equal,
        comparisons=exact,
        step=_step_info(verification.step) if verification.step else None,
    ).model_dump_json(indent=2)


def json_schema() -> str:
    """The JSON Schema of that document."""
    schema: dict[str, Any] = VerificationDocument.model_json_schema()
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}, indent=2) + "\n"


def _step_info(step: MeasuredStep) -> StepInfo:
    return StepInfo(
        device=step.device,
        recompute=step.recompute,
        predicted_peak_bytes=step.predicted_bytes,
        measured_peak_bytes=step.peak_bytes,
        measured_step_seconds=step.step_seconds,
        lower_bound_seconds=step.bound_seconds,
    )


def text(verification: Verification) -> RenderableType:
    """The table for a terminal."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("figure", overflow="fold")
    table.add_column("unit")
    for heading in ("analysed", "measured", ""):
        table.add_column(heading, justify="right")
    for c in verification.comparisons:
        verdict = "equal" if c.equal else f"{c.measured - c.analysed:+,}"
        numbers = units.exact(c.analysed), units.exact(c.measured)
        table.add_row(c.figure, c.unit, *numbers, verdict, style=None if c.equal else "bold red")
    where = f"{verification.batch} x {units.exact(verification.context)} tokens, {verification.dtype}"
    title = Text(f"{verification.model}, built and measured on the meta device: {where}", style="bold")
    return Group(title, table, *([_step(verification.step)] if verification.step else []))


def _step(step: MeasuredStep) -> Text:
    off = (step.predicted_bytes - step.peak_bytes) / step.peak_bytes
    bound = "" if step.bound_seconds is None else f"; no faster than {units.duration(step.bound_seconds)}"
    return Text(
        f"training on {step.device}, recompute {step.recompute}: peak {units.binary_bytes(step.peak_bytes)}, "
        f"predicted {units.binary_bytes(step.predicted_bytes)} ({off:+.2%}); "
        f"{units.duration(step.step_seconds)} a step{bound}"
    )
