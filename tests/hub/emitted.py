"""A printed hub.py as the families that it holds."""

from __future__ import annotations

import ast
from typing import Any

from archc.codegen.runtime.hf_family import Family


def families(module: str) -> tuple[Family, ...]:
    """The families of a hub.py, run where its siblings are."""
    names: dict[str, Any] = {"__package__": "archc.codegen.runtime", "__name__": "archc.codegen.runtime.hub"}
    exec(compile(ast.parse(module), "hub.py", "exec"), names)
    found: tuple[Family, ...] = names["FAMILIES"]
    return found
