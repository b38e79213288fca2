"""The codes: each is declared by its page `explain/CODE.md`, and by nothing else."""

from __future__ import annotations

from pathlib import Path

PAGES = Path(__file__).with_name("explain")


def codes() -> tuple[str, ...]:
    """Every declared code, in alphabetical order."""
    return tuple(sorted(page.stem for page in PAGES.glob("*.md")))


def explain(code: str) -> str | None:
    """The page of a code (Markdown), or None if there is no such code."""
    return (PAGES / f"{code}.md").read_text("utf-8") if code in codes() else None


def declared(code: str) -> str:
    """`code`, if it has a page; a code without one is a mistake in archc."""
    if not (PAGES / f"{code}.md").is_file():
        raise KeyError(f"diagnostic code {code!r} is not declared: it has no page in {PAGES.name}/")
    return code
