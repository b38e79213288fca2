"""A package as a build would write it, around the hand-written toy model."""

import importlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

HERE = Path(__file__).parent
RUNTIME = HERE.parents[1] / "archc" / "codegen" / "runtime"
MODULES = ("model", "train", "generate", "data", "checkpoint", "shards", "optimizer", "progress", "command")


def make_package(folder: Path, name: str) -> Path:
    """Write the toy package; returns its directory."""
    package = folder / name
    shutil.copytree(RUNTIME, package, ignore=shutil.ignore_patterns("*.pyi", "__pycache__"))
    shutil.copytree(HERE / "toy", package, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "namespace.py").write_text(f'NAMESPACE = "{name}"\n')  # its own: another test may have ours registered
    return package


@pytest.fixture(scope="session")
def toy_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder on the path that holds the package `toy_package`."""
    folder = tmp_path_factory.mktemp("packages")
    make_package(folder, "toy_package")
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))


@pytest.fixture(scope="session")
def toy(toy_folder: Path) -> SimpleNamespace:
    """The modules of the toy package by name."""
    names = (*MODULES, "hf", "hf_names", "hub", "precision")
    return SimpleNamespace(**{name: importlib.import_module(f"toy_package.{name}") for name in names})


@pytest.fixture
def make_model(toy):
    """A function that makes the model with the initial weights of a seed."""
    import torch

    return lambda seed=0, dtype=torch.float32: toy.train.build(seed, torch.device("cpu"), dtype)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """A folder with twelve documents that a model can learn from."""
    folder = tmp_path / "text"
    folder.mkdir()
    for i in range(12):
        (folder / f"{i:02d}.txt").write_text(
            f"document {i}\n" + "the quick brown fox jumps over the lazy dog\n" * (2 + i)
        )
    return folder
