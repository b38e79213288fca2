"""docs/adding-a-mixer.md: what it quotes is what the files say, and the mixer is known to no other file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "adding-a-mixer.md").read_text(encoding="utf-8")
QUOTED = re.findall(r"```python\n# (\S+)\n(.+?)```", PAGE, re.DOTALL)
LISTED = re.findall(r"^\| `(\S+)` \|", PAGE, re.MULTILINE)


@pytest.mark.parametrize(("file", "code"), QUOTED, ids=lambda part: part if part.endswith(".py") else "")
def test_a_quotation_is_what_the_file_says(file: str, code: str) -> None:
    assert code in (ROOT / file).read_text(encoding="utf-8")


def test_no_other_file_of_archc_knows_the_mixer() -> None:
    """Adding it edited nothing: no file but its own has its name."""
    naming = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "archc").rglob("*")
        if path.is_file() and path.suffix in {".py", ".jinja", ".lark", ".json", ".md"}
        if re.search(r"gated_?delta", path.name + path.read_text(encoding="utf-8"), re.IGNORECASE)
    }
    assert naming == {file for file in LISTED if file.startswith("archc/")}
