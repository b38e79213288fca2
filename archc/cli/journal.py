"""A build changes its folder as a whole: everything is staged inside it, and then moved into place.

`.archc-build/` holds the new files and, once all of them are there, `journal.json`. Without a journal the package is
what it was, and what is staged is rubbish; from the journal on it is the new one, and whoever comes next finishes the
moves. Each move is undone by nothing and may be repeated, so that it does not matter where the last one stopped.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from archc.cli.manifest import MANIFEST, as_json, content, is_plain, parsed, state_of
from archc.diagnostics import Diagnostic, DiagnosticError

STAGING = ".archc-build"
JOURNAL = "journal.json"


@dataclass(frozen=True)
class Change:
    """What happens to the file `name`: `new` replaces it (None: it goes), if it still is what the plan saw, `old`.

    Both are states of a file (`manifest.state_of`). With `aside`, what was there is kept as `NAME.orig`.
    """

    name: str
    new: str | None
    old: str | None
    aside: bool = False


def stage(folder: Path, files: Mapping[str, bytes], changes: Iterable[Change]) -> None:
    """Put the new files and then the journal beside the package. An OSError leaves the folder as it was."""
    staging = folder / STAGING
    staging.mkdir()
    try:
        ordered = sorted(changes, key=lambda change: change.name == MANIFEST)  # what names the others comes last
        for change in ordered:
            if change.new is not None:
                _create(staging / change.name, files[change.name])
        said = {change.name: {"new": change.new, "old": change.old, "aside": change.aside} for change in ordered}
        _create(staging / f"{JOURNAL}.tmp", as_json({"changes": said}))
        (staging / f"{JOURNAL}.tmp").rename(staging / JOURNAL)
    except OSError:
        with suppress(OSError):  # the next build drops what cannot be dropped now
            _drop(staging)
        raise


def settle(folder: Path) -> None:
    """Finish what a journal has begun; drop what was staged without one."""
    staging = folder / STAGING
    if not os.path.lexists(staging):
        return
    if staging.is_symlink() or not staging.is_dir():
        message = f"{staging} is in the way: a build keeps its new files there for a moment"
        raise DiagnosticError(Diagnostic("would-overwrite", message, help="move it away; nothing was written"))
    for change in _changes(content(staging / JOURNAL) or b""):
        _apply(folder, staging, change)
    _drop(staging)


def _apply(folder: Path, staging: Path, change: Change) -> None:
    path, staged = folder / change.name, staging / change.name
    now = state_of(path)
    if now == change.new:
        return
    if now not in (change.old, None):
        return  # edited since: the next plan sees it as an edit
    if now is not None and change.aside:
        path.rename(aside(path))
    if change.new is None:
        path.unlink(missing_ok=True)
    elif state_of(staged) == change.new:
        staged.replace(path)


def _changes(journal: bytes) -> list[Change]:
    """The changes of a journal; none of a file that is not one. Names that leave the folder are not believed."""
    said = parsed(journal).get("changes")
    changes: list[Change] = []
    for name, fields in said.items() if isinstance(said, dict) else ():
        if is_plain(name) and isinstance(fields, dict) and {"new", "old", "aside"} <= fields.keys():
            changes.append(Change(name, fields["new"], fields["old"], bool(fields["aside"])))
    return changes


def _drop(staging: Path) -> None:
    """Remove the staged files, the journal first: a folder that is half removed is rubbish, not a change."""
    (staging / JOURNAL).unlink(missing_ok=True)
    for path in staging.iterdir():
        path.unlink()
    staging.rmdir()


def _create(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)


def aside(path: Path) -> Path:
    """A free name for what a person wrote: `model.py.orig`, `model.py.orig.2`, ..."""
    names = (path.with_name(f"{path.name}.orig" + (f".{i}" if i > 1 else "")) for i in count(1))
    return next(name for name in names if not os.path.lexists(name))
