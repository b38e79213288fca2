"""The stack cut into equal stages, as pipeline parallelism cuts it, without unrolling it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from archc.ir.graph import Layer, Repeat, Stack, Use


def cut_evenly(stack: tuple[Stack, ...], n: int) -> tuple[dict[Layer, int], ...]:
    """How often each layer runs in each of `n` stages, whose numbers of layers differ by one at most."""
    total = length(stack)
    before = [first(stack, i * total // n) for i in range(n + 1)]
    return tuple(
        {layer: count - start.get(layer, 0) for layer, count in end.items() if count > start.get(layer, 0)}
        for start, end in pairwise(before)
    )


def length(stack: tuple[Stack, ...]) -> int:
    """Layers of a stack."""
    return sum(element.count * length(element.body) if isinstance(element, Repeat) else 1 for element in stack)


def first(stack: tuple[Stack, ...], n: int) -> dict[Layer, int]:
    """How often each layer runs among the first `n`."""
    found: dict[Layer, int] = {}

    def take(layer: Layer, times: int) -> None:
        found[layer] = found.get(layer, 0) + times

    def walk(stack: tuple[Stack, ...], n: int, times: int) -> None:
        for element in stack:
            if n <= 0:
                return
            if isinstance(element, Use):
                take(element.layer, times)
                n -= 1
                continue
            size = length(element.body)
            whole = min(element.count, n // size)
            if whole:
                walk(element.body, size, times * whole)
            if whole < element.count:
                walk(element.body, n - whole * size, times)
            n -= min(n, element.count * size)

    walk(stack, n, 1)
    return found


def turning_points(stack: tuple[Stack, ...], start: int, end: int) -> list[int]:
    """Places in `start <= place < end` such that what changes evenly with each pass of a repeat is most at one of them.

    Of every repeat they are its first and last pass in that range, and those next to them, which are whole.
    """
    return sorted(set(_turns(stack, 0, start, end)))


def layer_at(stack: tuple[Stack, ...], place: int) -> Layer:
    """The layer at a place, counted from 0."""
    for element in stack:
        size = element.count * length(element.body) if isinstance(element, Repeat) else 1
        if place >= size:
            place -= size
        elif isinstance(element, Use):
            return element.layer
        else:
            return layer_at(element.body, place % length(element.body))
    raise IndexError("there are fewer layers")


def _turns(stack: tuple[Stack, ...], place: int, start: int, end: int) -> Iterator[int]:
    for element in stack:
        if isinstance(element, Use):
            if start <= place < end:
                yield place
            place += 1
            continue
        size = length(element.body)
        low, high = max(0, (start - place) // size), min(element.count - 1, (end - 1 - place) // size)
        for which in {n for n in (low, low + 1, high - 1, high) if low <= n <= high}:
            yield from _turns(element.body, place + which * size, start, end)
        place += element.count * size
