"""`archc build --merge`: what changed since the last build goes into the files that were edited since, by git.

What the two have in common is the last build. It is made again from the `spec.arch` that it left, and believed where
the manifest's hash says that it is the same.
"""

from __future__ import annotations

import subprocess
import tempfile
from functools import cache
from itertools import product
from pathlib import Path

from archc import compiler
from archc.cli.folder import Merge
from archc.cli.manifest import content, hash_of, recorded
from archc.diagnostics import Diagnostic, DiagnosticError

SPEC = "spec.arch"
MAX_CONFLICTS = 127  # git's exit status counts no further; above it are its own failures


def merging(folder: Path) -> Merge:
    """How edited files of the package in `folder` are merged. Raises DiagnosticError "cannot-merge"."""

    @cache
    def last(fuse: bool, target: str) -> dict[str, str]:
        spec = content(folder / SPEC)
        if spec is None or hash_of(spec) != recorded(folder).get(SPEC):
            raise _refused(f"{folder / SPEC} is not the spec of the last build", "restore it")
        try:
            model = compiler.load(compiler.source(str(folder / SPEC), spec))
            return compiler.build(model, fuse=fuse, target=target)
        except DiagnosticError:
            message = "this version of archc no longer builds the last spec"
            raise _refused(message, "build with the version before") from None

    def merge(name: str, edited: bytes, new: bytes) -> tuple[bytes, bool]:
        wanted = recorded(folder).get(name)
        if wanted is None:
            raise _refused(f"archc did not write {folder / name}", "move it away")
        options = product((True, False), compiler.targets())
        texts = (last(*chosen).get(name, "").encode() for chosen in options)
        base = next((text for text in texts if hash_of(text) == wanted), None)
        if base is None:
            message = f"this version of archc no longer writes {name} as the last build did"
            raise _refused(message, "build with the version before, then with this one")
        return merge_file(edited, base, new)

    return merge


def merge_file(edited: bytes, base: bytes, new: bytes) -> tuple[bytes, bool]:
    """The changes from `base` to `edited` and from `base` to `new` in one text, and whether some of them conflict."""
    with tempfile.TemporaryDirectory() as name:
        paths = [Path(name, label) for label in ("edited", "last-build", "this-build")]
        for path, data in zip(paths, (edited, base, new), strict=True):
            path.write_bytes(data)
        labels = [word for path in paths for word in ("-L", path.name)]
        command = ["git", "merge-file", "-p", "--diff3", *labels, *map(str, paths)]
        try:
            done = subprocess.run(command, cwd=name, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        except FileNotFoundError:
            raise _refused("git, which merges, is not installed", "install git") from None
    if not 0 <= done.returncode <= MAX_CONFLICTS:
        said = done.stderr.decode(errors="replace").strip()
        raise _refused(f"git cannot merge: {said}", "git merge-file takes text alone")
    return done.stdout, done.returncode > 0


def _refused(message: str, hint: str) -> DiagnosticError:
    hint += ", or move edited files aside with --force; nothing was written"
    return DiagnosticError(Diagnostic("cannot-merge", message, help=hint))
