"""`archc analyze`: what a model costs, and what it takes on devices."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from archc import compiler
from archc.cli import talk
from archc.cli import workloads as ask
from archc.cli.arguments import Expression, Settings, Spec, load, source
from archc.cli.talk import BUDGET_EXCEEDED, say, show, tell
from archc.passes.plan import Training

Json = Annotated[bool, typer.Option("--json", help="As JSON; `archc schema` describes it.")]
Format = Annotated[Literal["text", "md", "json"], typer.Option("--format", help="How to write the report.")]
Ops = Annotated[bool, typer.Option("--ops", help="A row for every op, too.")]
Verify = Annotated[bool, typer.Option("--verify", help="Build it, measure it and compare; needs torch.")]
Curve = Annotated[bool, typer.Option("--curve", help="Memory over the context, drawn.")]


def analyze(
    spec: Spec = None,
    expression: Expression = None,
    settings: Settings = None,
    context: ask.Context = None,
    batch: ask.Batch = 1,
    dtype: ask.ModelDtype = "bf16",
    weight_dtype: ask.WeightDtype = None,
    kv_dtype: ask.KvDtype = None,
    state_dtype: ask.StateDtype = "fp32",
    convention: ask.Counting = "archc",
    ops: Ops = False,
    curve: Curve = False,
    form: Format = "text",
    as_json: Json = False,
    mode: ask.Mode = None,
    gpu: ask.Gpu = None,
    gpu_memory: ask.GpuMemory = None,
    bandwidth: ask.Bandwidth = None,
    rate: ask.Rate = None,
    max_memory: ask.MaxMemory = None,
    fit: ask.Fit = False,
    optimizer: ask.Optimizer = "adamw",
    grad_dtype: ask.GradDtype = "fp32",
    master_dtype: ask.MasterDtype = "fp32",
    recompute: ask.Recomputing = "none",
    accumulation: ask.Accumulation = 1,
    tp: ask.Tp = 1,
    pp: ask.Pp = 1,
    cp: ask.Cp = 1,
    ep: ask.Ep = 1,
    dp: ask.Dp = 1,
    fsdp: ask.Fsdp = 1,
    verify: Verify = False,
) -> None:
    """Exact budgets of a spec: parameters, caches, FLOPs; with a device, a plan or a mode also memory and time."""
    device = ask.device(gpu, gpu_memory, bandwidth, rate)
    if fit and device is None:
        raise typer.BadParameter("fit what? give --gpu NAME or --gpu-mem SIZE", param_hint="--fit")
    model = load(source(spec, expression), settings)
    workload = ask.workload(model, context, batch, dtype, weight_dtype, kv_dtype, state_dtype)
    training = Training(optimizer, grad_dtype, master_dtype, recompute, accumulation)
    plan = ask.plan(tp, pp, cp, ep, dp, fsdp, model.n_layers)
    request = ask.request(mode, plan, training, device, max_memory, ops=ops, curve=curve)
    if verify:
        from archc.cli.verifying import verify as verified  # builds, and asks another process

        raise typer.Exit(verified(model, workload, request, training, as_json=as_json or form == "json"))
    analysis, sizing = compiler.analyse(model, workload, convention), None
    if request is not None:
        from archc.linting import lint  # not every report needs these
        from archc.sizing import size

        tell(lint(model, workload, request))
        sizing = size(model, workload, request)
    if as_json or form == "json":
        from archc.report.document import to_json as document  # pydantic takes longer than all the rest

        say(document(analysis, sizing, talk.version()))
    elif form == "md":
        from archc.report.markdown import markdown

        say(markdown(analysis, sizing))
    else:
        from archc.report.text import report

        show(report(analysis, sizing))
    if sizing is not None and sizing.fits is False and (fit or max_memory is not None):
        raise typer.Exit(BUDGET_EXCEEDED)
