"""One package with every variant, rendered once and imported once."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

from .variants import write_package


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that holds `kernels_pkg`."""
    folder = tmp_path_factory.mktemp("kernels")
    write_package(folder / "kernels_pkg", "archc_kernels_under_test")
    return folder


@pytest.fixture(scope="session")
def package(folder: Path) -> ModuleType:
    """`kernels_pkg` with its modules as attributes."""
    pytest.importorskip("torch")
    sys.path.insert(0, str(folder))
    package = importlib.import_module("kernels_pkg")
    for file in sorted((folder / "kernels_pkg").glob("*.py")):
        if not file.stem.endswith(("__init__", "_kernels")):
            importlib.import_module(f"kernels_pkg.{file.stem}")
    return package
