"""Who may import whom: ARCHITECTURE.md's table, read from the sources by `ast` and enforced."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "archc"
RUNTIME = "archc.codegen.runtime"

# Part -> what it may import: parts of archc and third-party packages. The standard library is open to all.
# `test_table_is_the_documented_one` keeps this and ARCHITECTURE.md the same.
MAY_IMPORT = {
    "diagnostics": {"rich"},
    "units": set(),
    "grammar": {"lark", "diagnostics"},
    "ir": {"networkx", "diagnostics"},
    "ops": {"ir"},
    "layers": {"ir", "ops"},
    "elaborate": {"grammar", "layers", "ops", "ir", "diagnostics"},
    "passes": {"ir", "ops", "units", "diagnostics"},
    "codegen": {"jinja2", "ir", "ops", "passes", "hub"},
    "hub": {"ir", "grammar", "diagnostics"},
    "report": {"passes", "units", "diagnostics", "pydantic", "rich"},
    "cli": {"report", "passes", "units", "diagnostics", "rich", "typer"}
    | {"compiler", "text", "loading", "sizing", "explaining", "linting", "verifying"},
}
# The journey joins every part and speaks to nobody; the entry points name cli and nothing else.
JOINTS = {
    "text": {"grammar", "diagnostics"},
    "loading": {"grammar", "elaborate", "ir", "passes", "diagnostics"},
    "compiler": {*MAY_IMPORT, "text", "loading"} - {"cli"},
    "sizing": {"compiler", "passes", "report"},
    "linting": {"compiler", "diagnostics", "grammar", "passes", "report"},
    "explaining": {"compiler", "sizing", "grammar", "ir", "passes", "report"},
    "verifying": {"compiler", "sizing", "ir", "passes", "report"},
    "__init__": set(),
    "__main__": {"cli"},
}
# What an emitted package may import: it stands alone, and archc is not there. transformers and rich are optional to it.
RUNTIME_MAY_IMPORT = {"torch", "triton", "numpy", "safetensors", "transformers", "rich"}
# Importing one of these costs longer than the whole of `archc analyze`, or it may not be installed.
HEAVY = {"torch", "triton", "numpy", "safetensors", "transformers"}


@dataclass(frozen=True)
class Import:
    """One imported module, as `importer` says it on `line`."""

    importer: str
    line: int
    imported: str

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.imported}"


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def modules() -> dict[str, ast.Module]:
    paths = sorted(p for p in PACKAGE.rglob("*.py*") if p.suffix in {".py", ".pyi"})
    return {module_name(p): ast.parse(p.read_text(encoding="utf-8"), str(p)) for p in paths}


@cache
def packages() -> frozenset[str]:
    return frozenset(module_name(p) for p in PACKAGE.rglob("__init__.py"))


def imports_of(name: str, tree: ast.Module) -> Iterator[Import]:
    """Every import of a module, those inside functions and under TYPE_CHECKING too, as absolute names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (Import(name, node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                home = name.split(".") if name in packages() else name.split(".")[:-1]
                home = home[: len(home) - node.level + 1]
                source = ".".join([*home, *([source] if source else [])])
            # `from archc.passes import params` imports the module archc.passes.params.
            for alias in node.names:
                full = f"{source}.{alias.name}"
                yield Import(name, node.lineno, full if full in modules() else source)


@cache
def all_imports() -> tuple[Import, ...]:
    return tuple(found for name, tree in modules().items() for found in imports_of(name, tree))


def part_of(module: str) -> str:
    """`archc.passes.params` -> `passes`; `archc` itself -> `__init__`."""
    return [*module.split("."), "__init__"][1]


def in_package(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def allowed(importer: str) -> set[str]:
    return (MAY_IMPORT | JOINTS).get(part_of(importer), set())


def test_imports_are_found_wherever_they_stand() -> None:
    tree = ast.parse(
        "from . import values\nfrom ..diagnostics import Span\nif TYPE_CHECKING:\n    import torch.nn\n"
        "def f():\n    from archc import units\n"
    )
    found = {(i.line, i.imported) for i in imports_of("archc.ir.graph", tree)}
    assert found == {(1, "archc.ir.values"), (2, "archc.diagnostics"), (4, "torch.nn"), (6, "archc.units")}


def test_every_part_is_in_the_table() -> None:
    parts = {part_of(name) for name in modules()}
    assert not parts - {*MAY_IMPORT, *JOINTS}, "a new part needs a row in ARCHITECTURE.md and here"


def test_table_is_the_documented_one() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`[a-z`, ]+`) \|.*\| (.+?) \|$", text, re.MULTILINE)
    documented = {tuple(re.findall(r"`(\w+)`", names)): set(re.findall(r"[a-z0-9]+", cell)) for names, cell in rows}
    assert {name for names in documented for name in names} == {*MAY_IMPORT}
    words = {word for names in MAY_IMPORT.values() for word in names} | {*MAY_IMPORT}
    for names, cell in documented.items():
        # A row of two parts grants to both together; cli reaches the rest through the joints and report.
        granted = set().union(*(MAY_IMPORT[name] for name in names)) - {*JOINTS, "report"}
        assert cell & words == granted, f"{names}: ARCHITECTURE.md says {cell & words}, this test {granted}"


def test_parts_import_only_what_the_table_allows() -> None:
    wrong = [
        found
        for found in all_imports()
        if in_package(found.imported, "archc")
        and not in_package(found.importer, RUNTIME)
        and part_of(found.imported) not in {part_of(found.importer), *allowed(found.importer)}
    ]
    assert not wrong, "\n".join(map(str, wrong))


def test_third_party_imports_stay_in_their_part() -> None:
    wrong = []
    for found in all_imports():
        top = found.imported.split(".")[0]
        if top == "archc" or top in sys.stdlib_module_names:
            continue
        free = RUNTIME_MAY_IMPORT if in_package(found.importer, RUNTIME) else allowed(found.importer)
        if top not in free:
            wrong.append(found)
    assert not wrong, "\n".join(map(str, wrong))


def test_nothing_imports_the_runtime() -> None:
    wrong = [
        found
        for found in all_imports()
        if in_package(found.imported, RUNTIME) and not in_package(found.importer, RUNTIME)
    ]
    assert not wrong, "\n".join(map(str, wrong))


def test_runtime_imports_siblings_alone() -> None:
    """The files are emitted as they stand into a flat package, in which archc does not exist."""
    wrong = [
        found
        for found in all_imports()
        if in_package(found.importer, RUNTIME)
        and in_package(found.imported, "archc")
        and not in_package(found.imported, RUNTIME)
    ]
    absolute = [
        f"{name}:{node.lineno} names archc absolutely"
        for name, tree in modules().items()
        if in_package(name, RUNTIME)
        for node in ast.walk(tree)
        if (isinstance(node, ast.ImportFrom) and not node.level and in_package(node.module or "", "archc"))
        or (isinstance(node, ast.Import) and any(in_package(alias.name, "archc") for alias in node.names))
    ]
    assert not wrong, "\n".join(map(str, wrong))
    assert not absolute, "\n".join(absolute)


def test_templates_never_import_archc() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in PACKAGE.rglob("*.jinja")
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.match(r"\s*(from|import)\s+archc\b", line)
    ]
    assert not wrong, "\n".join(wrong)


def is_layer_kind(name: str) -> bool:
    """A kind is a module that gives a mixer a word of the language: `class Mamba(Mixer, keyword="mamba")`."""
    classes = [node for node in modules()[name].body if isinstance(node, ast.ClassDef)]
    bases = {base.id for node in classes for base in node.bases if isinstance(base, ast.Name)}
    words = [word for node in classes for word in node.keywords if word.arg == "keyword"]
    return part_of(name) == "layers" and bool(words) and bool(bases & {"Mixer", "ChannelMixer"})


def is_pass(name: str) -> bool:
    """A pass is a module that defines the function of its own name."""
    return part_of(name) == "passes" and any(
        isinstance(node, ast.FunctionDef) and node.name == name.split(".")[-1] for node in modules()[name].body
    )


def siblings(kind: Iterator[str]) -> list[Import]:
    names = set(kind)
    assert names, "the rule found no module to hold for"
    return [f for f in all_imports() if {f.importer, f.imported} <= names and f.importer != f.imported]


def test_layer_kinds_do_not_import_each_other() -> None:
    wrong = siblings(name for name in modules() if is_layer_kind(name) and name not in packages())
    assert not wrong, "\n".join(map(str, wrong))


def test_passes_do_not_run_each_other() -> None:
    """A pass may read the table of another, which is handed to it; `pipeline` and the joints run them."""
    passes = {name for name in modules() if is_pass(name)}
    assert passes
    wrong = [
        f"{name}:{node.lineno} runs {node.module}"
        for name in passes
        for node in ast.walk(modules()[name])
        if isinstance(node, ast.ImportFrom)
        and node.module in passes
        and node.module.split(".")[-1] in {alias.name for alias in node.names}
    ]
    assert not wrong, "\n".join(wrong)


def imported_by(*command: str, cwd: Path) -> set[str]:
    """Top-level names of all modules that a real process of `python -m archc COMMAND` imports."""
    run = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "archc", *command],
        cwd=cwd,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=120,
        check=False,
    )
    trace, said = [], []
    for line in run.stderr.splitlines():
        (trace if line.startswith("import time:") else said).append(line)
    assert run.returncode == 0, f"archc {' '.join(command)}: exit {run.returncode}\n{run.stdout}" + "\n".join(said)
    return {line.rsplit("|", 1)[1].strip().split(".")[0] for line in trace}


@pytest.mark.parametrize(
    "command",
    [
        ("analyze", "specs/jamba_v0_1.arch"),
        ("analyze", "--json", "specs/jamba_v0_1.arch"),
        ("check", "specs/jamba_v0_1.arch"),
        ("fmt", "--check", "specs/jamba_v0_1.arch"),
        ("build", "specs/jamba_tiny.arch", "-o", "{tmp}/jamba_tiny"),
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_commands_never_import_torch(command: tuple[str, ...], tmp_path: Path) -> None:
    loaded = imported_by(*(word.format(tmp=tmp_path) for word in command), cwd=ROOT)
    assert "archc" in loaded, "the trace lists what the command imported"
    assert not loaded & HEAVY
