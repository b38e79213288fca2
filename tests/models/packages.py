"""Packages built from spec texts and imported, each once a session."""

from __future__ import annotations

import gc
import importlib
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

from archc import compiler
from archc.diagnostics import Source
from archc.ir.graph import Graph
from archc.passes.pipeline import lower


@dataclass(frozen=True)
class Package:
    """A generated package on disk."""

    name: str
    folder: Path
    model: compiler.Model
    lowered: Graph
    files: dict[str, str]

    @property
    def path(self) -> Path:
        return self.folder / self.name

    def module(self, name: str = "model") -> ModuleType:
        """One of its modules, imported."""
        return importlib.import_module(f"{self.name}.{name}")

    @cached_property
    def namespace(self) -> str:
        """Where its operations are registered."""
        return str(self.module("namespace").NAMESPACE)

    def make(self, dtype: Any = None, seed: int = 0) -> Any:
        """Its model, evaluating, with every parameter away from zero and one, so that nothing cancels."""
        import torch

        torch.set_num_threads(1)  # tensors this small wait for threads, and workers for each other's
        torch.manual_seed(seed)
        model = self.module().Model().to(dtype or torch.float64).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.2)
        return model


class Workshop:
    """Builds packages under names of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.built: dict[tuple[str, bool], Package] = {}
        sys.path.insert(0, str(folder))

    def __call__(self, text: str, *, fuse: bool = True) -> Package:
        if (text, fuse) not in self.built:
            model = compiler.load(Source("spec", text))
            name = f"{model.graph.settings.name}_{len(self.built)}"
            graph = lower(model.graph) if fuse else model.graph
            package = Package(name, self.folder, model, graph, compiler.build(model, fuse=fuse))
            write(package.path, package.files)
            self.built[text, fuse] = package
            gc.freeze()  # hundreds of thousands of objects live to the end; each collection would visit them all
        return self.built[text, fuse]


def write(folder: Path, files: dict[str, str]) -> None:
    folder.mkdir(parents=True)
    for file, text in files.items():
        (folder / file).write_text(text, encoding="utf-8")
