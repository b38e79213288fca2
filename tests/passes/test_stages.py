"""Stages of a rolled stack are those of the unrolled one."""

import itertools
import random
from collections import Counter

import pytest

from archc.ir.graph import Layer, OpGraph, Repeat, Stack, Use, unrolled
from archc.passes.stages import cut_evenly, first, layer_at, length, turning_points

NOTHING = OpGraph((), (), ())
LAYERS = [Layer(NOTHING, (), str(i), None) for i in range(4)]


def stack(draw: random.Random, depth: int) -> tuple[Stack, ...]:
    found: list[Stack] = []
    for _ in range(draw.randint(1, 3)):
        if depth and draw.random() < 0.6:
            found.append(Repeat(draw.randint(1, 4), stack(draw, depth - 1)))
        else:
            found.append(Use(draw.choice(LAYERS)))
    return tuple(found)


@pytest.mark.parametrize("seed", range(100))
def test_counting_without_unrolling(seed: int) -> None:
    draw = random.Random(seed)
    rolled = stack(draw, 3)
    layers = list(unrolled(rolled))
    assert length(rolled) == len(layers)
    assert [layer_at(rolled, i) for i in range(len(layers))] == layers
    n = draw.randint(0, len(layers))
    assert first(rolled, n) == Counter(layers[:n])
    pp = draw.randint(1, len(layers))
    cuts = [i * len(layers) // pp for i in range(pp + 1)]
    assert list(cut_evenly(rolled, pp)) == [Counter(layers[a:b]) for a, b in itertools.pairwise(cuts)]


@pytest.mark.parametrize("seed", range(200))
def test_what_changes_evenly_is_most_at_a_turning_point(seed: int) -> None:
    """Each layer adds its own amount from its place on, and weighs something of its own while it runs."""
    draw = random.Random(seed)
    rolled = stack(draw, 3)
    layers = list(unrolled(rolled))
    adds = {layer: draw.randint(-5, 5) for layer in LAYERS}
    weighs = {layer: draw.randint(0, 20) for layer in LAYERS}
    begin = draw.randint(0, len(layers) - 1)
    end = draw.randint(begin + 1, len(layers))

    def at(place: int) -> int:
        return sum(adds[layer] for layer in layers[:place]) + weighs[layers[place]]

    places = turning_points(rolled, begin, end)
    assert set(places) <= set(range(begin, end))
    for layer in set(layers[begin:end]):
        assert max(at(i) for i in places if layers[i] is layer) == max(
            at(i) for i in range(begin, end) if layers[i] is layer
        )


def test_a_thousand_million_layers_are_few_turning_points() -> None:
    rolled = (Repeat(10**9, (Use(LAYERS[0]), Repeat(3, (Use(LAYERS[1]),)))),)
    assert length(rolled) == 4 * 10**9
    assert first(rolled, 10**9 + 2) == {LAYERS[0]: 250_000_001, LAYERS[1]: 750_000_001}
    assert len(turning_points(rolled, 10**9, 3 * 10**9)) < 20
    assert layer_at(rolled, 3 * 10**9) is LAYERS[0]
