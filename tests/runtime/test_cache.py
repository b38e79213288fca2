"""The cache: counting, room, bytes."""

import pytest
import torch

from archc.codegen.runtime.attention import AttentionState
from archc.codegen.runtime.cache import Cache


def make(capacity: int | None = 8) -> Cache:
    length = torch.zeros((), dtype=torch.int64)
    attention = AttentionState(torch.zeros(2, 8, 1, 4), torch.zeros(2, 8, 1, 3, dtype=torch.bfloat16), length)
    recurrence = (torch.zeros(2, 3, 5), torch.zeros(2, 5, 4))
    return Cache([attention, None, recurrence], length, capacity)


def test_bytes_leave_out_the_length() -> None:
    assert make().nbytes == 2 * 8 * 4 * 4 + 2 * 8 * 3 * 2 + 2 * 3 * 5 * 4 + 2 * 5 * 4 * 4


def test_advance_is_seen_by_attention() -> None:
    cache = make()
    cache.advance(3)
    assert isinstance(cache.states[0], AttentionState)
    assert int(cache.states[0].length) == cache.seen == 3
    assert cache.positions(2, 2).tolist() == [[3, 4], [3, 4]]


def test_overfilling_is_an_error_that_changes_nothing() -> None:
    cache = make()
    cache.advance(6)
    for overfill in (lambda: cache.advance(3), lambda: cache.positions(1, 3)):
        with pytest.raises(ValueError, match="3 more tokens do not fit: the cache has seen 6 and holds 8"):
            overfill()
    assert int(cache.length) == cache.seen == 6
    cache.advance(2)


def test_without_capacity_there_is_no_end() -> None:
    cache = make(capacity=None)
    cache.advance(1000)
    assert cache.seen == 1000


def test_reset_forgets_everything() -> None:
    cache = make()
    cache.advance(5)
    for state in cache.states:
        for tensor in state or ():
            tensor.add_(1)
    cache.reset()
    assert cache.seen == int(cache.length) == 0
    assert not any(tensor.any() for state in cache.states for tensor in state or ())
