"""The kernel families, one file each. Importing this package imports every file beside it, so that each registers."""

from importlib import import_module
from pkgutil import iter_modules

from archc.codegen.kernels.kernel import Kernel
from archc.codegen.kernels.render import render

__all__ = ["Kernel", "render"]

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
