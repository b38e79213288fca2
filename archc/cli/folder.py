"""The folder of a package: all of it is written or nothing, and never over what a person wrote.

A file is edited if its content is neither what archc left there nor what is to be written. Where archc would write what
it wrote before, the edit stands; where not, nothing is written at all, unless edited files may be moved aside, or are
merged. Files that the manifest does not name are not archc's.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from archc.cli.journal import Change, settle, stage
from archc.cli.manifest import MANIFEST, content, hash_of, is_manifest, is_plain, manifest, recorded, state_of
from archc.diagnostics import Diagnostic, DiagnosticError

MAX_NAMED = 8  # edited files that a message lists


@dataclass(frozen=True)
class Written:
    """What a build did to its folder, as names of files."""

    written: tuple[str, ...]
    unchanged: tuple[str, ...]
    removed: tuple[str, ...]
    left: tuple[str, ...]  # no longer generated, but edited
    kept: tuple[str, ...]  # edited, and the same is generated as before
    moved: tuple[str, ...]  # edited and in the way: moved aside
    merged: tuple[str, ...] = ()  # edited, and what changed since was merged in
    conflicts: tuple[str, ...] = ()  # merged with marks where both changed the same; moved aside too


class Merge(Protocol):
    """Of a name, the bytes of an edited file and the new ones: the merged bytes, and whether they hold conflicts."""

    def __call__(self, name: str, edited: bytes, new: bytes) -> tuple[bytes, bool]: ...


def write_package(folder: Path, texts: Mapping[str, str], *, force: bool, merge: Merge | None = None) -> Written:
    """Make `folder` hold the files `texts`. Raises DiagnosticError "would-overwrite" before anything is written."""
    files = {name: text.encode() for name, text in texts.items()}
    files[MANIFEST] = manifest(files)
    for name in files:
        if not is_plain(name):
            raise ValueError(f"not the name of a file in one folder: {name!r}")
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder):
            settle(folder)
            return _write(folder, files, force, merge)
    except OSError as failure:
        if is_new:
            with suppress(OSError):  # it is not empty, or cannot be removed: then it stays
                folder.rmdir()
        message = f"cannot write {failure.filename or folder}: {failure.strerror}"
        raise DiagnosticError(Diagnostic("unwritable-folder", message)) from None


def write_file(path: Path, data: bytes) -> None:
    """Replace a file in one step: a reader sees the old content or the new. Of a link, its target is replaced."""
    path = path.resolve()
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("xb") as file:
            file.write(data)
        if path.exists():
            beside.chmod(path.stat().st_mode & 0o777)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _write(folder: Path, files: dict[str, bytes], force: bool, merge: Merge | None) -> Written:
    plan = _plan(folder, files, force)
    merged: list[str] = []
    conflicts: list[str] = []
    for name in plan.moved if merge else ():
        mine = content(folder / name)
        if merge and mine is not None:
            files[name], clashes = merge(name, mine, files[name])
            (conflicts if clashes else merged).append(name)
    moved = tuple(name for name in plan.moved if name not in merged)
    if set(moved) - set(conflicts) and not force:
        raise DiagnosticError(_would_overwrite(folder, moved))
    changes = [
        Change(name, hash_of(files[name]) if name in files else None, state_of(folder / name), name in moved)
        for name in (*plan.written, *plan.removed)
    ]
    if changes:
        stage(folder, files, changes)
        settle(folder)
    return replace(plan, moved=moved, merged=tuple(merged), conflicts=tuple(conflicts))


def _plan(folder: Path, files: Mapping[str, bytes], force: bool) -> Written:
    """What has to be done; `moved` are all edited files that are in the way."""
    ours = recorded(folder)
    found = {name: state for name in {*files, *ours} if (state := state_of(folder / name)) is not None}
    edited = {name for name, state in found.items() if state != ours.get(name)}
    if is_manifest(content(folder / MANIFEST)):
        edited.discard(MANIFEST)
    hashes = {name: hash_of(data) for name, data in files.items()}
    kept = {name for name in edited if not force and name in ours and ours[name] == hashes.get(name)}
    written = tuple(name for name in files if found.get(name) != hashes[name] and name not in kept)
    obsolete = sorted(found.keys() - files.keys())
    return Written(
        written=written,
        unchanged=tuple(name for name in files if found.get(name) == hashes[name]),
        removed=tuple(name for name in obsolete if name not in edited),
        left=tuple(name for name in obsolete if name in edited),
        kept=tuple(sorted(kept)),
        moved=tuple(sorted(edited & set(written))),
    )


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One build at a time in a folder; on Windows, which has no lock on folders, at one's own risk."""
    if sys.platform == "win32":
        yield
        return
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _would_overwrite(folder: Path, edited: tuple[str, ...]) -> Diagnostic:
    named = ", ".join(edited[:MAX_NAMED]) + (f" and {len(edited) - MAX_NAMED} more" if len(edited) > MAX_NAMED else "")
    return Diagnostic(
        "would-overwrite",
        f"{folder} holds files that archc did not write, or that were edited since: {named}",
        help="nothing was written; --merge merges what changed into them, --force moves them aside as NAME.orig",
    )
