"""`archc diff`: what changes from one spec to another, in structure and in every budget."""

from __future__ import annotations

from typing import Annotated

import typer

from archc import compiler
from archc.cli import workloads as ask
from archc.cli.arguments import load, named
from archc.cli.talk import say
from archc.passes.plan import Training

Two = Annotated[list[str], typer.Argument(metavar="A B", help="Two specs; - reads standard input.")]


def diff(
    specs: Two,
    context: ask.Context = None,
    batch: ask.Batch = 1,
    dtype: ask.ModelDtype = "bf16",
    weight_dtype: ask.WeightDtype = None,
    kv_dtype: ask.KvDtype = None,
    state_dtype: ask.StateDtype = "fp32",
    convention: ask.Counting = "archc",
    mode: ask.Mode = None,
    gpu: ask.Gpu = None,
    recompute: ask.Recomputing = "none",
    fsdp: ask.Fsdp = 1,
) -> None:
    """What changes from one spec to another: layers, sizes, stored tensors, and every budget.

    Both are asked for the same context: the one that is given, else that of A, else that of B.
    """
    from archc.report.difference import Side, difference_text
    from archc.sizing import size

    if len(specs) != 2:
        raise typer.BadParameter("name two specs", param_hint="A B")
    sources = [source() for source in named(specs, None)]
    models = [load(source, None) for source in sources]
    tokens = context or next((str(n) for n in (m.graph.settings.context for m in models) if n), None)
    sides = []
    for source, model in zip(sources, models, strict=True):
        workload = ask.workload(model, tokens, batch, dtype, weight_dtype, kv_dtype, state_dtype)
        plan = ask.plan(1, 1, 1, 1, 1, fsdp, model.n_layers)
        training = Training(recompute=recompute)
        device = ask.device(gpu, None, None, None)
        request = ask.request(mode, plan, training, device, None, ops=False, curve=False)
        sizing = size(model, workload, request) if request else None
        sides.append(Side(source.name, compiler.analyse(model, workload, convention), sizing))
    say(difference_text(*sides))
