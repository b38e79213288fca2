"""What a class of the emitted model holds of its own: submodules, parameters, and how they begin."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from archc.codegen.layout import statement
from archc.codegen.programs import BODY, Names
from archc.ir.graph import Node
from archc.ir.op import attribute
from archc.ir.values import Weight

ADDS = "N_RESIDUAL_ADDS"


@dataclass(frozen=True)
class Members:
    """Lines of the constructor and of `init_weights`; `packs` are groups of projections that lie side by side."""

    constructor: tuple[str, ...]
    initialise: tuple[str, ...]
    packs: tuple[str, ...]

    @property
    def base(self) -> str:
        return "Packed" if self.packs else "nn.Module"

    @property
    def closing(self) -> tuple[str, ...]:
        """The last lines of the constructor."""
        return (f"{' ' * BODY}self.pack()",) if self.packs else ()


def members(nodes: Sequence[Node], names: Names) -> Members:
    """The members that `nodes` own."""
    weights = [weight for node in nodes for weight in node.op.weights()]
    modules = {module.name for node in nodes for module in node.op.modules()}
    bare = [weight for weight in weights if weight.path.partition(".")[0] not in modules]
    packs = tuple(dict.fromkeys(group for node in nodes for group in node.op.packs()))
    if packs:
        names.use(".projections", "Packed")
    return Members(
        (*_module_lines(nodes, names), *_parameter_lines(bare)),
        tuple(_initialise(weights, names)),
        tuple(_tuple(f'"{member}"' for member in group) for group in packs),
    )


def _module_lines(nodes: Iterable[Node], names: Names) -> Iterator[str]:
    for module in (module for node in nodes for module in node.op.modules()):
        names.imports.update(module.imports)
        yield statement(f"self.{module.name} = {module.constructor}", BODY, module.comment)


def _initialise(weights: Iterable[Weight], names: Names) -> Iterator[str]:
    """One call of the package's initialisations for each weight."""
    for weight in weights:
        arguments = [attribute(weight.path), *map(repr, weight.init.arguments)]
        if weight.init.residual_out:
            arguments[-1] += f" * {ADDS}**-0.5"
        function = names.use(weight.init.module, weight.init.function)
        yield statement(f"{function}({', '.join(arguments)})", BODY)


def _parameter_lines(weights: Iterable[Weight]) -> list[str]:
    """Weights that no submodule holds: parameters, and dictionaries of them."""
    lines, groups = [], set()
    for weight in weights:
        group, _, rest = weight.path.partition(".")
        if rest and group not in groups:
            groups.add(group)
            lines.append(f"{' ' * BODY}self.{group} = nn.ParameterDict()")
        sizes = ", ".join(str(axis.size.value) for axis in weight.axes)
        dtype, trained = (", dtype=torch.int8", ", requires_grad=False") if weight.int8 else ("", "")
        parameter = f"nn.Parameter(torch.empty({sizes}{dtype}){trained})"
        shape = "[" + ", ".join(axis.name for axis in weight.axes) + "]"
        lines.append(statement(f"{attribute(weight.path)} = {parameter}", BODY, shape))
    return lines


def _tuple(items: Iterable[str]) -> str:
    members = list(items)
    return f"({', '.join(members)},)" if len(members) == 1 else f"({', '.join(members)})"
