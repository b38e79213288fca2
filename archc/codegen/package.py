"""The emitted package: every file that `archc build` writes, as text.

What is the same for every model is copied from `runtime/`; kernels and model.py are rendered; nothing here depends on
the time, the machine or the order of a set, so that two builds are byte-equal.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from hashlib import sha256
from importlib.resources import files

import jinja2

from archc.codegen.imports import import_lines, siblings
from archc.codegen.kernels import Kernel as KernelView
from archc.codegen.kernels import render
from archc.codegen.layout import statement
from archc.codegen.model import ModelView, model_view
from archc.codegen.programs import Names
from archc.hub import hub_py
from archc.ir.graph import Graph
from archc.ir.op import Kernel
from archc.ir.text import meaning

ALWAYS = ("train.py", "generate.py", "checkpoint.py", "hf.py", "cache.py", "precision.py", "measure.py", "warmup.py")


def build_package(graph: Graph, lowered: Graph, spec_text: str, name: str, target: str) -> dict[str, str]:
    """All files of the package `name`, by file name. `graph` is the model as written, `lowered` as it will run.

    Kernels take the tile table of `target`.
    """
    spec_hash = sha256(meaning(graph).encode()).hexdigest()
    names = Names(_Namer())
    view = model_view(lowered, names, (), spec_hash)
    built = {"model.py": _model_file(view, names, graph), "hub.py": hub_py(graph), "spec.arch": spec_text}
    views = [
        KernelView.known[kernel.family](name=function, target=target, **kernel.options)
        for function, kernel in sorted(names.kernels.items())
    ]
    for kernel in views:
        built |= render(kernel)
    built["namespace.py"] = ""
    built |= _runtime_files(built, [file for kernel in views for file in kernel.runtime])
    content = sha256("\0".join(f"{file}\0{built[file]}" for file in sorted(built)).encode()).hexdigest()
    built["namespace.py"] = _render("namespace.py", name=name, namespace=f"{_identifier(name)}_{content[:12]}")
    for file in ("__init__.py", "pyproject.toml", "README.md", "test_model.py"):
        built[file] = _render(file, name=name, view=view, kernel_files=_kernel_files(built))
    return built


def _model_file(view: ModelView, names: Names, graph: Graph) -> str:
    imports = {
        *names.imports,
        ("collections.abc", "Iterator"),
        ("typing", "Any"),
        ("torch", ""),
        ("torch", "Tensor"),
        ("torch", "nn"),
        (".cache", "Cache"),
        (".recompute", "Recompute"),
        (".recompute", "layer_call"),
    }
    if view.prefix:
        imports.add((".prefix", "Prefix"))
    if any(c.cache for c in view.classes):
        imports.add(("typing", "NamedTuple"))
    return _render(
        "model.py",
        view=view,
        imports=import_lines(imports),
        no_decay=_suffix_lines("NO_DECAY", view.no_decay),
        keep_fp32=_suffix_lines("KEEP_FP32", view.keep_fp32),
    )


def _suffix_lines(name: str, suffixes: tuple[str, ...]) -> str:
    members = ", ".join(f'".{suffix}"' for suffix in suffixes)
    comma = "," if len(suffixes) == 1 else ""
    return statement(f"{name}: tuple[str, ...] = ({members}{comma})", 0)


class _Namer:
    """Names of kernel functions: the family's, and with its tag from the second variant on."""

    def __init__(self) -> None:
        self._named: dict[Kernel, str] = {}

    def __call__(self, kernel: Kernel) -> str:
        if kernel not in self._named:
            taken = kernel.family in self._named.values()
            self._named[kernel] = f"{kernel.family}_{kernel.tag}" if taken else kernel.family
        return self._named[kernel]


def _runtime_files(built: dict[str, str], beside: Iterable[str]) -> dict[str, str]:
    """The files of runtime/ that the package needs: those that run it, those `beside` kernels, and what all import."""
    found: dict[str, str] = {}
    wanted = [*ALWAYS, *beside, *(file for text in _python(built) for file in sorted(siblings(text)))]
    while wanted:
        file = wanted.pop()
        if file not in found and file not in built:
            found[file] = files("archc.codegen").joinpath("runtime", file).read_text()
            wanted += sorted(siblings(found[file]))
    return found


def _python(built: dict[str, str]) -> Iterable[str]:
    return (text for file, text in built.items() if file.endswith(".py") and text)


def _kernel_files(built: dict[str, str]) -> list[str]:
    return sorted(file for file in built if file.endswith("_kernels.py"))


def _identifier(name: str) -> str:
    return "".join(char if char.isascii() and char.isalnum() else "_" for char in name)


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("archc.codegen"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )


def _render(file: str, **values: object) -> str:
    return _environment().get_template(f"{file}.jinja").render(**values)
