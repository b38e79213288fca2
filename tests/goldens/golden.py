"""Files that tests compare with, and the switch that rewrites them: ARCHC_UPDATE_GOLDENS=1."""

import difflib
import os
from pathlib import Path

FOLDER = Path(__file__).parent


def check(name: str, text: str) -> None:
    """`text` is what stands in the golden `name`."""
    path = FOLDER / name
    if os.environ.get("ARCHC_UPDATE_GOLDENS") == "1":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    expected = path.read_text(encoding="utf-8") if path.exists() else ""
    if text != expected:
        diff = difflib.unified_diff(expected.splitlines(), text.splitlines(), f"golden {name}", "now", lineterm="")
        raise AssertionError("\n".join(diff) + "\nARCHC_UPDATE_GOLDENS=1 accepts the change")
