"""The protocol of an op: everything that archc knows about one piece of mathematics.

Counts, cache sizes, generated code and checkpoint names are readings of these methods; no pass and no printer knows a
concrete op. A new op is a new file in `archc.ops` with a frozen dataclass that fills in what differs from the defaults.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from archc.ir.size import ZERO, Size, add
from archc.ir.tape import Tape
from archc.ir.values import Axis, State, Value, ValueType, Weight, numel


class MisfitError(ValueError):
    """Sizes that do not fit an op, in words of the spec; elaboration makes it a diagnostic at the layer."""


@dataclass(frozen=True, slots=True)
class Flops:
    """FLOPs of one use, one multiply-add counting 2.

    `model`: what the mathematics needs, forward. `forward` and `backward`: what the generated kernels execute.
    """

    model: Size = ZERO
    forward: Size = ZERO
    backward: Size = ZERO

    def __add__(self, other: Flops) -> Flops:
        return Flops(add(self.model, other.model), add(self.forward, other.forward), add(self.backward, other.backward))


@dataclass(frozen=True, slots=True)
class Result:
    """Shape of one output of an op."""

    axes: tuple[Axis, ...]
    type: ValueType = "activation"


@dataclass(frozen=True, slots=True)
class Kernel:
    """A generated kernel file that an op calls: a template's family and the options that specialise it."""

    family: str
    options: Mapping[str, int | bool | str]
    tag: str  # tells two variants of one family apart within a package: `n32`

    def __hash__(self) -> int:
        return hash((self.family, tuple(sorted(self.options.items()))))


@dataclass(frozen=True, slots=True)
class Module:
    """A submodule that holds weights: `in_proj = nn.Linear(4096, 16384, bias=False)`."""

    name: str
    constructor: str
    comment: str = ""
    imports: tuple[tuple[str, str], ...] = ()  # (module, name) pairs that the constructor needs


def attribute(path: str, root: str = "self") -> str:
    """The Python for a weight or submodule: `self.in_proj.weight`, `self.A_log`, `self.experts["up_proj"]`."""
    head, _, rest = path.partition(".")
    return f"{root}.{path}" if rest in ("", "weight", "bias") else f'{root}.{head}["{rest}"]'


@dataclass(frozen=True, slots=True)
class Printer:
    """What an op may write into its line of Python: operands, weights, and names that the generator chose.

    `kernel(k)` is the function of a generated kernel file, `kernel(k, "add_")` its sibling with that prefix.
    """

    inputs: Sequence[str]
    kernel: Callable[..., str] = field(repr=False)
    positions: str = "positions"
    cache: str = "cache"
    root: str = "self"  # the object that holds the weights

    def held(self, field_name: str) -> str:
        """The keyword argument that hands an op its part of the cache, if there is a cache."""
        return f"state={self.cache}.{field_name} if {self.cache} else None"

    def weight(self, path: str) -> str:
        return attribute(path, self.root)


@dataclass(frozen=True, kw_only=True)
class Op(ABC):
    """One operation with its options. Methods get the values it is applied to where shapes matter."""

    @abstractmethod
    def results(self, *inputs: Value) -> tuple[Result, ...]:
        """Shapes of the outputs."""

    @abstractmethod
    def code(self, p: Printer) -> str:
        """The Python expression that computes it."""

    def weights(self) -> tuple[Weight, ...]:
        """The tensors that it owns."""
        return ()

    def modules(self) -> tuple[Module, ...]:
        """The submodules that hold its weights; weights outside any module are bare parameters."""
        return ()

    def state(self) -> tuple[State, ...]:
        """What one sequence keeps between tokens."""
        return ()

    def flops(self, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> Flops:
        """Operations of one use. Pointwise ops and norms count nothing, as the field counts."""
        return Flops()

    def pair_flops(self, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> Size:
        """Forward FLOPs of one (query, key) pair over all heads; 0 if pairs of tokens are not looked at."""
        return ZERO

    def borrowed(self, inputs: tuple[Value, ...]) -> tuple[Weight, ...]:
        """Tensors that it reads and another op owns."""
        return ()

    def touched(self, weight: Weight) -> Size:
        """Elements of its `weight` that B sequences of T tokens read at least once, routed evenly."""
        return numel(weight.axes)

    def retain(self, tape: Tape, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> None:
        """Say where the results lie and what backward reads: unless an op says otherwise, its inputs."""
        for value in outputs:
            if self.is_view:
                tape.view(value, *inputs)
            else:
                tape.new(value, wide=tape.wide(*inputs))
        if not self.is_view:
            tape.keep(*inputs)

    def workspace(self, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> tuple[Size, Size]:
        """Bytes that it holds for a while beside operands, results and what it keeps: forward, and backward."""
        return ZERO, ZERO

    @property
    def matmul(self) -> bool:
        """Whether its FLOPs are matrix products, which run on tensor cores."""
        return False

    @property
    def is_view(self) -> bool:
        """Whether its results lie where its inputs do, so that no byte moves."""
        return False

    def imports(self) -> tuple[tuple[str, str], ...]:
        """(module, name) pairs that `code` needs: siblings in the package, or ("torch.nn", "functional as F")."""
        return ()

    def packs(self) -> tuple[tuple[str, ...], ...]:
        """Groups of submodules whose weights are laid out side by side."""
        return ()

    @property
    def mixes_tokens(self) -> bool:
        """Whether it looks along T, and so takes `positions` and, when decoding, `state`."""
        return False

    @property
    def positional(self) -> bool:
        """Whether it reads `positions`."""
        return self.mixes_tokens

    @property
    def label(self) -> str:
        """Name and options, for the printed IR."""
        return type(self).__name__
