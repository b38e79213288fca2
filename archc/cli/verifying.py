"""`archc analyze --verify`: the package is built in a folder that goes away, and another process measures it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import typer

from archc import compiler
from archc.cli import talk
from archc.cli.talk import DIAGNOSTICS, FINE, say, show
from archc.compiler import Model
from archc.diagnostics import Diagnostic, DiagnosticError
from archc.passes.plan import Training
from archc.passes.workload import Workload
from archc.report.sizing import ONE_DEVICE, Request
from archc.verifying import TORCH, as_built, step_bytes, training_step, verification

PACKAGE = "verified"
MAX_LINES = 8  # of what a child process says when it fails


def verify(model: Model, workload: Workload, request: Request | None, training: Training, *, as_json: bool) -> int:
    """Compare, say how it went, and give the exit code: not 0 if any exact figure differs."""
    if workload.dtype not in TORCH:
        raise typer.BadParameter(f"a package is built in {', '.join(TORCH)}", param_hint="--verify")
    if request is not None and request.plan != ONE_DEVICE:
        raise typer.BadParameter("a package is measured on one device, not on a plan", param_hint="--verify")
    workload, step = as_built(workload), training_step(training.recompute, request.device if request else None)
    found = verification(model, workload, step, measured(model, workload, step))
    if as_json:
        from archc.report.verification import to_json

        say(to_json(found, talk.version()))
    else:
        from archc.report.verification import text

        show(text(found))
    return FINE if found.equal else DIAGNOSTICS


def measured(model: Model, workload: Workload, request: Request) -> dict[str, Any]:
    """What `measure.py` of the package prints."""
    sizes = ["--batch", workload.batch, "--context", workload.context, "--dtype", TORCH[workload.dtype]]
    step = ["--step", request.training.recompute, "--free", step_bytes(model, workload, request)]
    with TemporaryDirectory(prefix="archc-") as folder:
        package = Path(folder, PACKAGE)
        package.mkdir()
        for name, content in compiler.build(model).items():
            (package / name).write_text(content, encoding="utf-8")
        run = subprocess.run(
            [sys.executable, "-m", f"{PACKAGE}.measure", *map(str, sizes + step)],
            cwd=folder,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
    if run.returncode:
        said = "\n".join(run.stderr.strip().splitlines()[-MAX_LINES:])
        raise DiagnosticError(Diagnostic("unmeasured", "the built package could not be measured", help=said))
    printed: dict[str, Any] = json.loads(run.stdout)
    return printed
