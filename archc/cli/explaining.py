"""`archc explain`: what a diagnostic means, and where a figure of a report is from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import typer

from archc.cli import workloads as ask
from archc.cli.arguments import Expression, Settings, Spec, load, source
from archc.cli.talk import say
from archc.diagnostics import Diagnostic, DiagnosticError, codes, nearest
from archc.diagnostics import explain as page_of
from archc.passes.plan import Training
from archc.report.sizing import PHASES, Request

What = Annotated[
    str | None, typer.Argument(metavar="CODE|FIGURE", help="A diagnostic's code, or params, kv, memory...")
]


def explain(
    what: What = None,
    spec: Spec = None,
    expression: Expression = None,
    settings: Settings = None,
    context: ask.Context = None,
    batch: ask.Batch = 1,
    dtype: ask.ModelDtype = "bf16",
    weight_dtype: ask.WeightDtype = None,
    kv_dtype: ask.KvDtype = None,
    state_dtype: ask.StateDtype = "fp32",
    mode: ask.Mode = None,
    gpu: ask.Gpu = None,
    gpu_memory: ask.GpuMemory = None,
    bandwidth: ask.Bandwidth = None,
    rate: ask.Rate = None,
    max_memory: ask.MaxMemory = None,
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
) -> None:
    """A diagnostic's code, or a figure of a spec: its formula with bindings, and the lines that it comes from.

    Without a name, all figures and codes.
    """
    from archc.explaining import TOPICS, explanation  # codes need none of it

    if what is None:
        figures = "\n".join(f"  {name:<10} {topic.about}" for name, topic in TOPICS.items())
        say(f"figures (archc explain FIGURE SPEC)\n{figures}\n\ncodes (archc explain CODE)\n  " + "\n  ".join(codes()))
        return
    if what not in TOPICS:
        say(_page(what, TOPICS))
        return
    model = load(source(spec, expression), settings)
    workload = ask.workload(model, context, batch, dtype, weight_dtype, kv_dtype, state_dtype)
    training = Training(optimizer, grad_dtype, master_dtype, recompute, accumulation)
    plan = ask.plan(tp, pp, cp, ep, dp, fsdp, model.n_layers)
    device = ask.device(gpu, gpu_memory, bandwidth, rate)
    limit = ask.limit(max_memory)
    from archc.report.explanation import explanation_text

    request = Request((mode,) if mode else PHASES, plan, training, device, limit)
    say(explanation_text(explanation(model, workload, request, what)))


def _page(code: str, figures: Iterable[str]) -> str:
    page = page_of(code)
    if page is not None:
        return page
    near = nearest(code, [*codes(), *figures])
    hint = f"did you mean `{near}`?" if near else "`archc explain` lists all of both"
    raise DiagnosticError(Diagnostic("unknown-code", f"there is no diagnostic or figure `{code}`", help=hint))
