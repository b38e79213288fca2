"""The search for what fits is exact, on any staircase, and cheap on what is nearly straight."""

import random

import pytest

from archc.passes.fit import MOST, largest


@pytest.mark.parametrize("seed", range(200))
def test_it_is_exact_on_any_staircase(seed: int) -> None:
    draw = random.Random(seed)
    steps = [draw.choice([0, 0, 1, draw.randrange(1, 1000)]) for _ in range(draw.randrange(2, 300))]
    heights = [draw.randrange(1000)]
    for step in steps:
        heights.append(heights[-1] + step)

    def n_bytes(n: int) -> int:
        return heights[min(n, len(heights)) - 1]

    capacity = draw.randrange(heights[0] - 1, heights[-1] + 2)
    fitting = [n for n in range(1, len(heights) + 1) if n_bytes(n) <= capacity]
    assert largest(n_bytes, capacity, most=len(heights)) == (fitting[-1] if fitting else 0)


@pytest.mark.parametrize("wiggle", [1, 64, 4096])
def test_it_is_cheap_on_what_is_nearly_straight(wiggle: int) -> None:
    asked: list[int] = []

    def n_bytes(n: int) -> int:
        asked.append(n)
        return 10**10 + 16_384 * n + (n // wiggle) % 2

    found = largest(n_bytes, 80 * 2**30)
    assert n_bytes(found) <= 80 * 2**30 < n_bytes(found + 1)
    assert len(asked) < 16


def test_what_never_grows_has_no_bound() -> None:
    assert largest(lambda n: 5, 5) == MOST
    assert largest(lambda n: 6, 5) == 0
