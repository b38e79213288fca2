"""Whatever happens to a build, the folder holds the old package or the new one, and other people's files."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from archc.cli.folder import write_package
from archc.cli.journal import JOURNAL, STAGING
from archc.cli.manifest import MANIFEST
from archc.diagnostics import DiagnosticError
from tests.robustness.interrupted import FOREIGN, contents, lay_foreign

ROOT = Path(__file__).parents[2]
Figure = Callable[[str], None]


def disturbed(way: str, seed: int, count: int) -> dict[str, object]:
    command = [sys.executable, "-m", "tests.robustness.interrupted", way, str(seed), str(count)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, f"{way}, seed {seed}\n{done.stderr[-4000:]}"
    said = json.loads(done.stdout)
    assert isinstance(said, dict)
    return said


def test_some_kills(seed: int) -> None:
    disturbed("killed", seed, 8)


@pytest.mark.heavy
def test_200_kills(seed: int, figure: Figure) -> None:
    said = disturbed("killed", seed, 200)
    figure(f"builds killed, seed {seed}: {said}")
    assert said["staging"]
    assert said["moving"]


def test_every_operation_of_a_build_may_fail(seed: int, figure: Figure) -> None:
    said = disturbed("failing", seed, 0)
    figure(f"builds with failing operations, seed {seed}: {said}")
    assert said.keys() == {"operations", "old", "new", "in between", "no matter"}
    assert said["old"]
    assert said["in between"]


def test_builds_at_the_same_time(seed: int, figure: Figure) -> None:
    said = disturbed("racing", seed, 3)
    figure(f"{said['builds']} builds in rounds of 8 into one folder, seed {seed}")


@pytest.mark.parametrize("limit", [5_000])
def test_the_kernel_itself_refuses(limit: int, tmp_path: Path) -> None:
    """Files of at most `limit` bytes: the command says so, and leaves no folder."""
    command = [sys.executable, "-m", "archc", "build", str(ROOT / "specs" / "jamba_tiny.arch"), "-o", "out"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert (done.returncode, done.stderr.split("]")[0]) == (1, "error[unwritable-folder")
    assert list(tmp_path.iterdir()) == []


# --- what stands in the way --------------------------------------------------------------------------

FIRST = {"a.py": "1\n", "b.py": "2\n"}
SECOND = {"a.py": "one\n", "b.py": "two\n"}


def stopped(folder: Path) -> None:
    """A build of SECOND over FIRST that stopped before its first move."""
    write_package(folder, FIRST, force=False)
    other = folder.with_name("other")
    write_package(other, SECOND, force=False)
    changes = {}
    (folder / STAGING).mkdir()
    for name in ("a.py", "b.py", MANIFEST):
        (folder / STAGING / name).write_bytes((other / name).read_bytes())
        hashes = [_hash(where / name) for where in (other, folder)]
        changes[name] = {"new": hashes[0], "old": hashes[1], "aside": False}
    (folder / STAGING / JOURNAL).write_text(json.dumps({"changes": changes}))


def _hash(path: Path) -> str:
    from archc.cli.manifest import hash_of

    return hash_of(path.read_bytes())


def test_an_edit_between_a_crash_and_the_next_build_stands(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    stopped(folder)
    (folder / "a.py").write_text("mine\n")
    with pytest.raises(DiagnosticError, match=r"a\.py"):
        write_package(folder, FIRST, force=False)
    assert (folder / "a.py").read_text() == "mine\n"
    assert (folder / "b.py").read_text() == "two\n"
    assert not (folder / STAGING).exists()


def test_a_staged_file_that_was_damaged_is_not_used(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    stopped(folder)
    (folder / STAGING / "a.py").write_text("on")
    write_package(folder, SECOND, force=True)
    assert (folder / "a.py").read_text() == "one\n"


@pytest.mark.parametrize("name", ["../a.txt", "sub/a.txt", "/etc/hostname", ".."])
def test_a_journal_reaches_nothing_outside(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    stopped(folder)
    (tmp_path / "a.txt").write_text("mine")
    journal = folder / STAGING / JOURNAL
    said = json.loads(journal.read_text())
    said["changes"][name] = {"new": None, "old": _hash(tmp_path / "a.txt"), "aside": False}
    journal.write_text(json.dumps(said))
    write_package(folder, SECOND, force=False)
    assert (tmp_path / "a.txt").read_text() == "mine"


@pytest.mark.parametrize("kind", ["link", "file"])
def test_what_is_not_a_staging_folder_is_not_touched(kind: str, tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    write_package(folder, FIRST, force=False)
    elsewhere.mkdir()
    (elsewhere / "mine").touch()
    staging = folder / STAGING
    staging.symlink_to(elsewhere) if kind == "link" else staging.write_text("mine")
    with pytest.raises(DiagnosticError) as failure:
        write_package(folder, SECOND, force=True)
    assert failure.value.diagnostics[0].code == "would-overwrite"
    assert (elsewhere / "mine").exists()
    assert (folder / "a.py").read_text() == "1\n"


def test_foreign_files_stay(tmp_path: Path) -> None:
    lay_foreign(tmp_path)
    for texts in (FIRST, SECOND, FIRST):
        write_package(tmp_path, texts, force=True)
        assert set(contents(tmp_path)) == {*texts, MANIFEST}
    assert {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()} >= set(FOREIGN)
