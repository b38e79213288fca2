"""The tape of a forward pass: which buffers there are, and which of them backward reads.

An op runs on it with the values of the graph in place of tensors (`Op.retain`), and says of its results where they lie
and of everything what its backward will read. Several values may lie in one buffer: the parts of a projection, and
whatever is a view of them. A buffer of which one part is read stays alive as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass

from archc.ir.size import Size, add, mul
from archc.ir.values import Value, numel

FP32_BYTES = 4
INDEX_BYTES = 8  # int64


@dataclass(frozen=True, slots=True, eq=False)
class Buffer:
    """One storage, compared by identity, and the op that made it.

    `wide` numbers have at least 32 bits, whatever the model's dtype.
    """

    name: str
    n_bytes: Size
    wide: bool = False
    maker: str = ""


class Tape:
    """What is written while a program runs in a dtype of `element` bytes; `maker` is the op that runs.

    `kept` is what backward reads, and `read` the values through which it does; `products` are what selective
    recomputation keeps: results of matrix products, attention and scans.
    """

    def __init__(self, element: int) -> None:
        self.element = element
        self.maker = ""
        self.kept: dict[Buffer, None] = {}
        self.read: dict[Value, None] = {}
        self.products: dict[Buffer, None] = {}
        self._origins: dict[Value, tuple[Value, ...]] = {}  # of views
        self._places: dict[Value, tuple[Buffer, ...]] = {}

    def places(self, value: Value) -> tuple[Buffer, ...]:
        """The buffers that a value lies in: one of a tensor, several of a bundle, none if it is not there."""
        return self._places[value]

    def put(self, value: Value, *buffers: Buffer) -> None:
        """Let a value lie in buffers that there are already."""
        self._places[value] = buffers

    def view(self, value: Value, *of: Value) -> None:
        """Let a value lie where others do."""
        self._origins[value] = of
        self.put(value, *(buffer for other in of for buffer in self.places(other)))

    def part(self, value: Value, parts: tuple[Value, ...]) -> Value | None:
        """Which of the parts a value is, or a view of; None if it is of none of them alone."""
        if value in parts:
            return value
        found = {self.part(origin, parts) for origin in self._origins.get(value, ())}
        return found.pop() if len(found) == 1 else None

    def absent(self, value: Value) -> bool:
        return not self.places(value)

    def wide(self, *values: Value) -> bool:
        """Whether a sum of the values has at least 32 bits whatever the model's dtype: one of them has."""
        return any(buffer.wide for value in values if value.type == "activation" for buffer in self.places(value))

    def new(self, *values: Value, wide: bool = False, product: bool = False) -> None:
        """Lay values side by side into a new buffer."""
        name = ", ".join(value.name or "_" for value in values)
        each = INDEX_BYTES if values[0].type == "index" else self.width(wide)
        buffer = Buffer(name, mul(add(*(numel(value.axes) for value in values)), each), wide, self.maker)
        for value in values:
            self.put(value, buffer)
        if product:
            self.products[buffer] = None

    def keep(self, *values: Value) -> None:
        """Backward reads these."""
        self.read.update(dict.fromkeys(values))
        for value in values:
            self.kept.update(dict.fromkeys(self.places(value)))

    def extra(self, name: str, n_bytes: Size, *, kept: bool = True, product: bool = False) -> None:
        """A buffer without a value of the graph, which backward reads unless it is not `kept`."""
        buffer = Buffer(name, n_bytes, maker=self.maker)
        if kept:
            self.kept[buffer] = None
        if product:
            self.products[buffer] = None

    def width(self, wide: bool = True) -> int:
        """Bytes of one number."""
        return max(FP32_BYTES, self.element) if wide else self.element
