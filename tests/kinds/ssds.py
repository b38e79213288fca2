"""The operations of Mamba-2's recurrence as a package has them, for each chunk and limits of its own."""

from __future__ import annotations

import importlib
import shutil
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from archc import codegen
from archc.codegen.kernels import render
from archc.codegen.kernels.ssd import Ssd

RUNTIME = Path(codegen.__file__).parent / "runtime"


@cache
def ssd_of(chunk: int, dt_limit: tuple[float, float] = (0.0, float("inf"))) -> Any:
    """The module `ssd` whose plain form has chunks of `chunk` tokens; it takes tensors of any sizes."""
    name = f"ssd_under_test_{ssd_of.cache_info().misses}"
    low, high = (repr(bound) for bound in dt_limit)
    view = Ssd(n_heads=4, d_head=4, n_groups=2, d_state=5, chunk=chunk, dt_min=low, dt_max=high)
    folder = Path(tempfile.mkdtemp())
    package = folder / name
    package.mkdir()
    for file, text in render(view).items():
        (package / file).write_text(text)
    for file in view.runtime:
        shutil.copy(RUNTIME / file, package / file)
    (package / "namespace.py").write_text(f'NAMESPACE = "{name}"\n')
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module(f"{name}.ssd")
    finally:
        sys.path.remove(str(folder))
