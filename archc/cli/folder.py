"""The folder of a package: written file by file, and never over what a person wrote.

`manifest.json` holds a hash of every file that archc wrote. A file whose content is neither that nor what is to be
written was edited: then nothing is written at all, unless the edited files may be moved aside. Files that the manifest
does not name are not archc's. The manifest comes last; what a build is about to write is noted first, so that the next
build knows the files of one that was interrupted.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from itertools import count
from pathlib import Path

from archc.cli.talk import version
from archc.diagnostics import Diagnostic, DiagnosticError

MANIFEST = "manifest.json"
PENDING = ".archc-pending.json"
MAX_NAMED = 8  # edited files that a message lists


@dataclass(frozen=True)
class Written:
    """What a build did to its folder, as names of files."""

    written: tuple[str, ...]
    unchanged: tuple[str, ...]
    removed: tuple[str, ...]
    left: tuple[str, ...]  # no longer generated, but edited
    moved: tuple[str, ...]  # edited and in the way: moved aside


def write_package(folder: Path, texts: Mapping[str, str], *, force: bool) -> Written:
    """Make `folder` hold the files `texts`. Raises DiagnosticError "would-overwrite" before anything is written."""
    files = {name: text.encode() for name, text in texts.items()}
    files[MANIFEST] = _manifest(files)
    for name in files:
        if not _is_plain(name):
            raise ValueError(f"not the name of a file in one folder: {name!r}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder):
            return _write(folder, files, force)
    except OSError as failure:
        message = f"cannot write {failure.filename or folder}: {failure.strerror}"
        raise DiagnosticError(Diagnostic("unwritable-folder", message)) from None


def write_file(path: Path, data: bytes) -> None:
    """Replace a file in one step: a reader sees the old content or the new."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("wb") as file:
            file.write(data)
        if path.exists():
            beside.chmod(path.stat().st_mode & 0o777)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _write(folder: Path, files: Mapping[str, bytes], force: bool) -> Written:
    plan = _plan(folder, files)
    if plan.moved and not force:
        raise DiagnosticError(_would_overwrite(folder, plan.moved))
    if plan.written or plan.removed:
        write_file(folder / PENDING, _json({"files": {name: _hash(data) for name, data in files.items()}}))
        for name in plan.moved:
            (folder / name).replace(_aside(folder / name))
        for name in plan.removed:
            (folder / name).unlink()
        for name in plan.written:  # the manifest is last among them
            write_file(folder / name, files[name])
        (folder / PENDING).unlink()
    return plan


def _plan(folder: Path, files: Mapping[str, bytes]) -> Written:
    """What has to be done. A file is edited if its content is neither what archc left there nor what it would write."""
    ours = _recorded(folder)
    found = {name: _content(folder / name) for name in {*files, *ours} if os.path.lexists(folder / name)}
    edited = {name for name, data in found.items() if data is None or _hash(data) not in ours.get(name, ())}
    if _is_manifest(found.get(MANIFEST)):
        edited.discard(MANIFEST)
    written = [name for name in files if name not in found or found[name] != files[name]]
    obsolete = sorted(found.keys() - files.keys())
    return Written(
        written=tuple(written),
        unchanged=tuple(name for name in files if name not in written),
        removed=tuple(name for name in obsolete if name not in edited),
        left=tuple(name for name in obsolete if name in edited),
        moved=tuple(sorted(edited & set(written))),
    )


# --- the manifest ----------------------------------------------------------------------------------


def _manifest(files: dict[str, bytes]) -> bytes:
    """Hashes of all other files; what the generator itself says of the package stands beside them."""
    said = json.loads(files.pop(MANIFEST, b"{}"))
    hashes = {name: _hash(data) for name, data in sorted(files.items())}
    return _json({"archc": version(), **said, "files": hashes})


def _recorded(folder: Path) -> dict[str, set[str]]:
    """The hashes that archc may have left under each name: of the last build, and of one that was interrupted."""
    known: dict[str, set[str]] = {}
    for record in (MANIFEST, PENDING):
        for name, hashed in _hashes(folder / record).items():
            known.setdefault(name, set()).add(hashed)
    return known


def _hashes(path: Path) -> dict[str, str]:
    """The `files` of a manifest; none of a file that is not one. Names that leave the folder are not believed."""
    data = _content(path)
    files = _parsed(data).get("files") if data else None
    if not isinstance(files, dict):
        return {}
    return {str(name): str(hashed) for name, hashed in files.items() if _is_plain(str(name))}


def _is_manifest(data: bytes | None) -> bool:
    return data is not None and {"archc", "files"} <= _parsed(data).keys()


def _parsed(data: bytes) -> dict[str, object]:
    try:
        parsed = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _json(content: object) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()


def _hash(data: bytes) -> str:
    return sha256(data).hexdigest()


# --- files -----------------------------------------------------------------------------------------


def _is_plain(name: str) -> bool:
    return name not in ("", ".", "..") and not any(char in name for char in "/\\\0:")


def _content(path: Path) -> bytes | None:
    """The bytes of a regular file; None for a link, a folder or nothing."""
    return path.read_bytes() if path.is_file() and not path.is_symlink() else None


def _aside(path: Path) -> Path:
    """A free name for what a person wrote: `model.py.orig`, `model.py.orig.2`, ..."""
    names = (path.with_name(f"{path.name}.orig" + (f".{i}" if i > 1 else "")) for i in count(1))
    return next(name for name in names if not os.path.lexists(name))


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
        help="nothing was written; build elsewhere with -o, or move these aside as NAME.orig with --force",
    )
