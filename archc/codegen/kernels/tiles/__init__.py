"""Tile tables: one JSON file a target, written by `python -m bench.tune` on a GPU, read when kernels are rendered."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

TARGETS = ("sm_90", "sm_80")


@cache
def table(target: str) -> dict[str, Any]:
    """What was found for `target`: its origin, and a list of choices for each family that has some."""
    found: dict[str, Any] = json.loads(files(__package__).joinpath(f"{target}.json").read_text())
    return found
