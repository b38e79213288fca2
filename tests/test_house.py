"""The house rules that no linter knows: names, sizes and docstrings of modules, clean text, canonical specs."""

import ast
import re
import subprocess
import sys
import warnings
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "archc").rglob("*.py"))
FOLDERS = (".ci", "archc", "bench", "docs", "scripts", "specs", "tests")
PYTHON = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
SPECS = sorted((ROOT / "specs").glob("*.arch"))

# A module is named for what it holds; these names hold anything.
EMPTY_NAMES = {"utils", "util", "common", "helpers", "helper", "base", "manager", "managers", "misc"}
MAX_LINES = 400
SMELL_LINES = 300
MAX_SPEC_LINES = 40
# Three words or more, from a capital or a name in backquotes to a full stop, or to a colon before a list or an example.
SENTENCE = re.compile(r"[A-Z`](\S* ){2,}.*[.:]")

# With a class around one letter, so that this file does not hold what it forbids.
FORBIDDEN_TEXT = {
    "notes to oneself": re.compile(r"\b([T]ODO|[F]IXME|[X]XX)\b"),
    "absolute paths of one machine": re.compile(r"(?<![\w.$}/])/([w]ork|[r]oot|[h]ome|[U]sers|[o]pt)/"),
    "paths out of the repository": re.compile(r"\.\./[s]hared\b"),
}


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def line_count(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


@cache
def tree() -> tuple[Path, ...]:
    """Every text file that git tracks, or would; in an unpacked archive, what stands in the folders of the project."""
    if (ROOT / ".git").exists():
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode()
        paths = [ROOT / name for name in listed.split("\0") if name]
    else:
        paths = [*ROOT.glob("*"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*"))]
    return tuple(path for path in paths if path.is_file() and b"\0" not in path.read_bytes()[:8192])


def test_modules_are_named_for_what_they_hold() -> None:
    wrong = [
        shown(path)
        for path in PYTHON
        if EMPTY_NAMES & {path.stem, *path.relative_to(ROOT).parent.parts} or path.stem.endswith(("_utils", "_manager"))
    ]
    assert not wrong, wrong


def test_files_are_small() -> None:
    sizes = {shown(path): line_count(path) for path in SOURCES}
    over = {name: n for name, n in sizes.items() if n > MAX_LINES}
    smell = {name: n for name, n in sizes.items() if SMELL_LINES < n <= MAX_LINES}
    if smell:
        warnings.warn(f"over {SMELL_LINES} lines: {smell}", stacklevel=1)
    assert not over, f"over {MAX_LINES} lines: {over}"


def test_every_module_says_what_it_is() -> None:
    wrong = []
    for path in SOURCES:
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        first = " ".join(docstring.split("\n\n")[0].split())
        if not SENTENCE.fullmatch(first):
            wrong.append(f"{shown(path)}: {first!r}")
    assert not wrong, "not a sentence:\n" + "\n".join(wrong)


@pytest.mark.parametrize("what", FORBIDDEN_TEXT)
def test_the_tree_is_free_of(what: str) -> None:
    wrong = [
        f"{shown(path)}:{number}: {line.strip()[:100]}"
        for path in tree()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if FORBIDDEN_TEXT[what].search(line)
    ]
    assert not wrong, "\n".join(wrong)


def test_there_are_specs() -> None:
    assert SPECS


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_a_spec_is_short_and_names_itself_and_its_source(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= MAX_SPEC_LINES
    assert re.match(r"# .*\barXiv:[0-9]{4}\.[0-9]{5}\b", lines[0]), "the first line names the system and its paper"
    assert f"model {path.stem}" in lines


def test_specs_are_canonical() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "archc", "fmt", "--check", *map(str, SPECS)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
