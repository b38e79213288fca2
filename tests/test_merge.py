"""`archc build --merge`: edits and changes come together, or both are shown; nothing a person wrote is lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from archc.cli.folder import write_package
from archc.cli.manifest import MANIFEST
from archc.cli.merge import merge_file, merging
from archc.compiler import build, load
from archc.diagnostics import DiagnosticError, Source

ROOT = Path(__file__).parents[1]
OLD = "model m\nvocab 16\nd_model 8\ncontext 16\nmlp none\nblock x2 < mamba >\n"
NEW = OLD.replace("vocab 16", "vocab 32")


def package(text: str) -> dict[str, str]:
    return build(load(Source("spec", text)))


def edit(path: Path, before: str, after: str) -> bytes:
    text = path.read_text()
    assert text.count(before) == 1
    path.write_text(text.replace(before, after))
    return path.read_bytes()


def test_an_edit_and_a_change_elsewhere_come_together(tmp_path: Path) -> None:
    write_package(tmp_path, package(OLD), force=False)
    edit(tmp_path / "train.py", "from __future__", "# mine\nfrom __future__")
    edit(tmp_path / "model.py", "from __future__", "# mine\nfrom __future__")
    done = write_package(tmp_path, package(NEW), force=False, merge=merging(tmp_path))
    assert (done.merged, done.kept, done.moved, done.conflicts) == (("model.py",), ("train.py",), (), ())
    expected = package(NEW)["model.py"].replace("from __future__", "# mine\nfrom __future__")
    assert (tmp_path / "model.py").read_text() == expected
    again = write_package(tmp_path, package(NEW), force=False)
    assert (again.written, again.kept) == ((), ("model.py", "train.py"))
    back = write_package(tmp_path, package(OLD), force=False, merge=merging(tmp_path))
    assert back.merged == ("model.py",)
    assert (tmp_path / "model.py").read_text() == package(OLD)["model.py"].replace(
        "from __future__", "# mine\nfrom __future__"
    )


def test_a_conflict_shows_both_and_keeps_the_edit(tmp_path: Path) -> None:
    write_package(tmp_path, package(OLD), force=False)
    edited = edit(tmp_path / "model.py", "VOCAB = 16", "VOCAB = 17")
    done = write_package(tmp_path, package(NEW), force=False, merge=merging(tmp_path))
    assert (done.conflicts, done.moved) == (("model.py",), ("model.py",))
    text = (tmp_path / "model.py").read_text()
    for line in (
        "<<<<<<< edited",
        "VOCAB = 17",
        "||||||| last-build",
        "VOCAB = 16",
        ">>>>>>> this-build",
        "VOCAB = 32",
    ):
        assert line in text
    assert (tmp_path / "model.py.orig").read_bytes() == edited


def test_a_package_built_without_fusions_is_merged_too(tmp_path: Path) -> None:
    write_package(tmp_path, build(load(Source("spec", OLD)), fuse=False), force=False)
    edit(tmp_path / "model.py", "from __future__", "# mine\nfrom __future__")
    assert write_package(tmp_path, package(NEW), force=False, merge=merging(tmp_path)).merged == ("model.py",)


@pytest.mark.parametrize("why", ["spec", "manifest", "foreign"])
def test_without_the_last_build_nothing_is_merged(why: str, tmp_path: Path) -> None:
    write_package(tmp_path, package(OLD), force=False)
    edit(tmp_path / "model.py", "from __future__", "# mine\nfrom __future__")
    if why == "spec":
        (tmp_path / "spec.arch").write_text(NEW.replace("32", "64"))
    elif why == "manifest":
        text = (tmp_path / MANIFEST).read_text()
        before = package(OLD)["model.py"]
        from archc.cli.manifest import hash_of

        (tmp_path / MANIFEST).write_text(text.replace(hash_of(before.encode()), hash_of(b"an older archc wrote this")))
    else:
        (tmp_path / MANIFEST).unlink()
    before_files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(DiagnosticError) as failure:
        write_package(tmp_path, package(NEW), force=False, merge=merging(tmp_path))
    assert failure.value.diagnostics[0].code == "cannot-merge"
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before_files


def test_git_decides() -> None:
    merged, conflicts = merge_file(b"1\n2\n3\n4\n5\n6\nmine\n", b"1\n2\n3\n4\n5\n6\n7\n", b"new\n2\n3\n4\n5\n6\n7\n")
    assert (merged, conflicts) == (b"new\n2\n3\n4\n5\n6\nmine\n", False)
    with pytest.raises(DiagnosticError, match="git cannot merge"):
        merge_file(b"\0a", b"\0b", b"\0c")


def test_the_command(tmp_path: Path) -> None:
    def archc(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "archc", "build", "-o", str(tmp_path / "out"), *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)

    assert archc("-e", OLD).returncode == 0
    edit(tmp_path / "out" / "model.py", "VOCAB = 16", "VOCAB = 17")
    assert archc("-e", NEW).returncode == 4
    assert archc("-e", NEW, "--merge", "--force").returncode == 2
    merged = archc("-e", NEW, "--merge")
    assert merged.returncode == 1
    assert merged.stderr.startswith("error[merge-conflict]: edited and changed in the same place: model.py\n")
