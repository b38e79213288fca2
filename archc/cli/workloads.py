"""The options that say what a model is asked for and on what, and what they mean together."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Annotated, Any, Literal

import typer

from archc import units
from archc.compiler import Model
from archc.diagnostics import nearest
from archc.passes.accelerators import ACCELERATORS, Accelerator
from archc.passes.convention import Convention
from archc.passes.costs import Phase
from archc.passes.plan import OptimizerName, Plan, Recompute, Training
from archc.passes.workload import DEFAULT_CONTEXT, Dtype, Workload
from archc.report.sizing import PHASES, Request

Floating = Literal["fp64", "fp32", "bf16", "fp16", "fp8"]
TERA = 10**12

DEVICE = "Devices"
TRAINING = "Training"
PARALLEL = "Parallel plan"

Context = Annotated[str | None, typer.Option(metavar="N", help="Tokens of a sequence, as 262144 or 256Ki.")]
Batch = Annotated[int, typer.Option(min=1, help="Sequences that a model replica runs at once.")]
ModelDtype = Annotated[Floating, typer.Option(help="Of weights, activations and conv state.")]
WeightDtype = Annotated[Dtype | None, typer.Option(help="Of weights alone; --dtype unless given.")]
KvDtype = Annotated[Dtype | None, typer.Option(help="Of keys and values; --dtype unless given.")]
StateDtype = Annotated[Floating, typer.Option(help="Of recurrent state.")]
Counting = Annotated[Convention, typer.Option(help="Whose count of training FLOPs stands beside ours.")]

Mode = Annotated[Phase | None, typer.Option(help="Look at one phase alone.", rich_help_panel=DEVICE)]
Gpu = Annotated[str | None, typer.Option(metavar="NAME", help=", ".join(ACCELERATORS), rich_help_panel=DEVICE)]
GpuMemory = Annotated[
    str | None, typer.Option("--gpu-mem", metavar="SIZE", help="Memory of a device: 80GiB.", rich_help_panel=DEVICE)
]
Bandwidth = Annotated[
    str | None, typer.Option("--bw", metavar="RATE", help="Its bandwidth: 3.35TB (a second).", rich_help_panel=DEVICE)
]
Rate = Annotated[
    str | None, typer.Option("--flops", metavar="RATE", help="Its dense rate: 989T (a second).", rich_help_panel=DEVICE)
]
MaxMemory = Annotated[
    str | None, typer.Option(metavar="SIZE", help="Exit with 3 if a device needs more.", rich_help_panel=DEVICE)
]
Fit = Annotated[bool, typer.Option("--fit", help="Exit with 3 if it does not fit the device.", rich_help_panel=DEVICE)]
Optimizer = Annotated[OptimizerName, typer.Option(help="What keeps state beside weights.", rich_help_panel=TRAINING)]
GradDtype = Annotated[Dtype, typer.Option(help="What gradients add up in.", rich_help_panel=TRAINING)]
MasterDtype = Annotated[Dtype, typer.Option(help="What the optimizer moves.", rich_help_panel=TRAINING)]
Recomputing = Annotated[Recompute, typer.Option(help="What is computed again in backward.", rich_help_panel=TRAINING)]
Accumulation = Annotated[int, typer.Option(min=1, help="Passes in an update.", rich_help_panel=TRAINING)]


def _degree(text: str) -> Any:
    return Annotated[int, typer.Option(min=1, help=text, rich_help_panel=PARALLEL)]


Tp = _degree("Tensor parallel, activations split along the sequence between products.")
Pp = _degree("Pipeline stages.")
Cp = _degree("Context parallel.")
Ep = _degree("Devices that experts are spread over.")
Dp = _degree("Copies of the model.")
Fsdp = _degree("Devices that weights, gradients and optimizer state are sharded over.")


def workload(
    model: Model,
    context: str | None,
    batch: int,
    dtype: Dtype,
    weight_dtype: Dtype | None,
    kv_dtype: Dtype | None,
    state_dtype: Dtype,
) -> Workload:
    """The workload; its context is the spec's unless given."""
    tokens = _parsed(units.parse_count, context, "--context") or model.graph.settings.context
    return Workload(
        tokens or DEFAULT_CONTEXT,
        batch,
        dtype,
        kv_dtype or dtype,
        state_dtype,
        assumed=tokens is None,
        weight_dtype=weight_dtype,
    )


def device(name: str | None, memory: str | None, bandwidth: str | None, rate: str | None) -> Accelerator | None:
    """A device of the table, with what else is given in place of the table's."""
    known = ACCELERATORS.get(name.lower()) if name else None
    if name and known is None:
        near = nearest(name.lower(), ACCELERATORS)
        hint = f"did you mean {near}?" if near else f"there are {', '.join(ACCELERATORS)}"
        raise typer.BadParameter(f"{name!r} is not in the table; {hint}", param_hint="--gpu")
    given = {
        "memory": _parsed(units.parse_bytes, memory, "--gpu-mem"),
        "bandwidth": _parsed(units.parse_bytes, bandwidth, "--bw"),
        "rate": _parsed(units.parse_count, rate, "--flops"),
    }
    if known is None and not any(given.values()):
        return None
    if known is None:
        missing = [option for option, n in zip(("--gpu-mem", "--bw", "--flops"), given.values(), strict=True) if not n]
        if missing:
            raise typer.BadParameter(f"without --gpu, give {' and '.join(missing)} too", param_hint=missing[0])
        known = Accelerator("custom", 0, 0, {}, 0)
    new: dict[str, Any] = {key: n for key, n in given.items() if n and key != "rate"}
    if given["rate"]:
        rates = dict.fromkeys(("fp8", "bf16", "fp16", "fp32"), given["rate"])
        new |= {"tensor": rates, "vector": given["rate"]}
    return dataclasses.replace(known, **new)


def request(
    mode: Phase | None,
    plan: Plan,
    training: Training,
    found: Accelerator | None,
    max_memory: str | None,
    *,
    ops: bool,
    curve: bool,
) -> Request | None:
    """What to say of devices; nothing unless something was asked about them."""
    most = limit(max_memory)
    asked = mode or found or most or ops or curve or plan != Plan() or training != Training()
    return Request((mode,) if mode else PHASES, plan, training, found, most, ops, curve) if asked else None


def limit(max_memory: str | None) -> int | None:
    return _parsed(units.parse_bytes, max_memory, "--max-memory")


def plan(tp: int, pp: int, cp: int, ep: int, dp: int, fsdp: int, n_layers: int) -> Plan:
    """The parallel plan."""
    if pp > n_layers:
        raise typer.BadParameter(f"{n_layers} layers cannot make {pp} stages", param_hint="--pp")
    try:
        return Plan(tp, pp, cp, ep, dp, fsdp)
    except ValueError as failure:
        raise typer.BadParameter(str(failure), param_hint="--ep") from None


def _parsed(parse: Callable[[str], int], text: str | None, option: str) -> int | None:
    """A number of at least 1."""
    if text is None:
        return None
    try:
        found = parse(text)
    except ValueError as failure:
        raise typer.BadParameter(str(failure), param_hint=option) from None
    if found < 1:
        what = "a sequence has at least one token" if option == "--context" else "this is at least 1"
        raise typer.BadParameter(what, param_hint=option)
    return found
