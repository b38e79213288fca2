"""A process that puts hostile names and strings into specs, builds what is accepted, and imports it under watch.

    python -m tests.robustness.named SEED COUNT

Every string is tried by itself; those that are accepted are built together, a dozen in a package. All files of a
package are read by what they are written for; its model is made on the meta device while an audit hook notes whatever
else happens. Figures are printed as JSON.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import json
import os
import sys
import tempfile
import tomllib
from collections import Counter
from pathlib import Path
from random import Random

import torch

from archc import compiler
from archc.diagnostics import DiagnosticError, Source
from archc.passes.workload import Workload
from tests.robustness.names import ROLES, spec, string, together

TOGETHER = 12
QUIET = ("os.listdir", "os.scandir", "os.stat", "os.getxattr", "os.listxattr", "os.walk", "os.fwalk")


class Watch:
    """Notes what a program does to the world while it is watched: files written, processes, sockets, libraries."""

    def __init__(self) -> None:
        self.on, self.seen = False, list[str]()
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[object, ...]) -> None:
        if not self.on:
            return
        part = event.split(".")[0]
        writes = event == "open" and not (
            isinstance(arguments[2], int) and not arguments[2] & (os.O_WRONLY | os.O_RDWR)
        )
        acts = part in ("os", "subprocess", "shutil", "socket", "ctypes", "pty", "signal", "winreg", "urllib", "ftplib")
        if writes or (acts and event not in QUIET):
            self.seen.append(f"{event}{arguments}")

    def make(self, package: str) -> torch.nn.Module:
        """The model of a package, imported and made under watch."""
        names, modules = set(vars(builtins)), set(sys.modules)
        self.on = True
        try:
            module = importlib.import_module(f"{package}.model")
            with torch.device("meta"):
                model = module.Model()
        finally:
            self.on = False
        assert not self.seen, f"it does more than a model: {self.seen[:3]}"
        assert set(vars(builtins)) == names
        foreign = {
            name for name in set(sys.modules) - modules if name.split(".")[0] not in (package, "torch", "triton")
        }
        assert not foreign & {"os", "subprocess", "socket", "ctypes", "shutil"}
        assert isinstance(model, torch.nn.Module)
        return model


def main() -> None:
    first, count = int(sys.argv[1]), int(sys.argv[2])
    sys.dont_write_bytecode = True
    seen: Counter[str] = Counter()
    accepted: list[tuple[str, str]] = []
    for seed in range(first, first + count):
        chance = Random(f"name {seed}")
        role, text = chance.choice(ROLES), string(chance)
        try:
            compiler.load(Source("spec", spec(role, text)))
        except DiagnosticError:
            seen["refused"] += 1
            continue
        except Exception as failure:
            raise AssertionError(f"seed {seed}: {role} {text!r}") from failure
        seen[f"accepted as {role}"] += 1
        accepted.append((role, text))
    with tempfile.TemporaryDirectory() as name:
        sys.path.insert(0, name)
        watch = Watch()
        warm(Path(name), watch)
        groups = [accepted[i : i + TOGETHER] for i in range(0, len(accepted), TOGETHER)]
        while groups:
            seen["packages"] += built(groups.pop(), groups, Path(name, f"p{seen['packages']}"), watch)
    print(json.dumps(seen))


def warm(folder: Path, watch: Watch) -> None:
    """Import what any package imports, so that later only what is its own is seen."""
    write(folder / "first", compiler.build(compiler.load(Source("first", spec("share", "g")))))
    for _ in range(2):  # torch prepares folders of its own when it is first used
        with torch.device("meta"):
            importlib.import_module("first.model").Model()


def built(group: list[tuple[str, str]], groups: list[list[tuple[str, str]]], folder: Path, watch: Watch) -> int:
    """Build and make one package; halves of a group whose members exclude each other are put back."""
    text = together(group)
    try:
        model = compiler.load(Source("spec", text))
    except DiagnosticError:
        assert len(group) > 1, text
        groups += [group[: len(group) // 2], group[len(group) // 2 :]]
        return 0
    files = compiler.build(model)
    for name, content in files.items():
        read(name, content)
    write(folder, files)
    made = watch.make(folder.name)
    total = compiler.analyse(model, Workload(8)).params.total
    assert sum(parameter.numel() for parameter in made.parameters()) == total, text
    children = dict(made.named_children())
    assert {share for role, share in group if role == "share"} <= children.keys(), text
    (constant,) = [line for line in files["model.py"].splitlines() if line.startswith("NAME = ")]
    assert ast.literal_eval(constant.removeprefix("NAME = ")) == model.graph.settings.name
    assert model.graph.settings.name.isidentifier()
    assert files["spec.arch"] == text
    for module in [module for module in sys.modules if module.split(".")[0] == folder.name]:
        del sys.modules[module]
    return 1


def read(name: str, content: str) -> None:
    """A file, as what it is for reads it."""
    match name.rpartition(".")[2]:
        case "py":
            ast.parse(content)
        case "toml":
            tomllib.loads(content)
        case "json":
            json.loads(content)
        case "arch":
            compiler.load(Source(name, content))
        case "md":
            assert content.count("```") % 2 == 0
        case _:
            raise AssertionError(f"who reads {name}?")


def write(folder: Path, files: dict[str, str]) -> None:
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
