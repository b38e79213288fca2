"""What a kernel family is: a frozen view of what a model fixes of it, and the templates that the view fills."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """One file of operations, the name of its public function, and the template files that print it.

    `family` is what an op's kernel asks for (`archc.ir.op.Kernel`), and the name of the function unless another is
    given; defining a subclass registers it.
    """

    known: ClassVar[dict[str, Callable[..., Kernel]]] = {}  # each takes a name and the options of its family
    family: ClassVar[str]
    templates: ClassVar[tuple[str, ...]]  # a file's name is `name`, then the template's suffix
    runtime: ClassVar[tuple[str, ...]]  # the files of `runtime/` that it imports
    name: str = ""
    target: str = "sm_90"  # whose tile table is taken

    def __init_subclass__(cls, family: str, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.family = family
        Kernel.known[family] = cls

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", self.family)

    @property
    def files(self) -> dict[str, str]:
        """The template of each file."""
        stem = self.templates[0].removesuffix(".py")
        return {self.name + file.removeprefix(stem): file for file in self.templates}
