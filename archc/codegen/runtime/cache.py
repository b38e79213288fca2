"""What a model keeps between calls, so that a sequence can be continued."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

State = tuple[Any, ...]
"""What one use of a layer keeps: a NamedTuple of tensors, or of such tuples."""


class Cache:
    """One state (or None) for every use of a layer, and how many tokens they have seen.

    `length` is a 0-d int64 tensor on the states' device that attention reads; `seen` is the same number on the host,
    so that filling the cache beyond its `capacity` is an error without waiting for a GPU. `capacity` None means that
    nothing in the cache can overflow (recurrences and windows only).
    """

    def __init__(self, states: list[State | None], length: Tensor, capacity: int | None = None) -> None:
        self.states = states
        self.length = length
        self.capacity = capacity
        self.seen = 0

    def positions(self, B: int, T: int) -> Tensor:
        """Stream positions `[B, T]` of the next T tokens. Raises ValueError if they do not fit."""
        self._check_room(T)
        return (self.length + torch.arange(T, device=self.length.device)).expand(B, T)

    def advance(self, n: int) -> None:
        """Count n more tokens: once for every call of the model. Raises ValueError if they do not fit."""
        self._check_room(n)
        self.length.add_(n)
        self.seen += n

    def reset(self) -> None:
        """Forget everything."""
        for tensor in self._tensors():
            tensor.zero_()
        self.length.zero_()
        self.seen = 0

    @property
    def nbytes(self) -> int:
        """Bytes of all states; `length` is not counted."""
        return sum(tensor.nbytes for tensor in self._tensors())

    def _tensors(self) -> list[Tensor]:
        return [tensor for tensor in _flatten(self.states) if tensor is not self.length]

    def _check_room(self, n: int) -> None:
        if self.capacity is not None and self.seen + n > self.capacity:
            raise ValueError(
                f"{n} more tokens do not fit: the cache has seen {self.seen} and holds {self.capacity}; "
                "make one with a larger context"
            )


def _flatten(states: Iterable[Any]) -> Iterator[Tensor]:
    for state in states:
        if isinstance(state, Tensor):
            yield state
        elif state is not None:
            yield from _flatten(state)
