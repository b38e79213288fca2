"""The largest integer for which something fits: exact, and with few evaluations of what is nearly a straight line."""

from __future__ import annotations

from collections.abc import Callable

MOST = 2**40  # tokens or sequences, beyond which nobody asks


def largest(n_bytes: Callable[[int], int], capacity: int, most: int = MOST) -> int:
    """The largest n from 1 to `most` with `n_bytes(n) <= capacity`; 0 if there is none. `n_bytes` never falls.

    Between an n that fits and one that does not, the next is where a line through both would meet the capacity; every
    third time it is the middle, so that no curve costs more than three times as many evaluations as halving.
    """
    low, at_low = 1, n_bytes(1)
    if at_low > capacity:
        return 0
    high, at_high = 2, n_bytes(2)
    while at_high <= capacity:
        if high >= most:
            return most
        low, at_low = high, at_high
        slope = max(1, (at_high - n_bytes(1)) // (high - 1))
        beyond = low + (capacity - at_low) // slope + 1
        high = min(most, max(2 * high, beyond))
        at_high = n_bytes(high)
    turn = 0
    while high - low > 1:
        line = low + (capacity - at_low) * (high - low) // (at_high - at_low)
        guess = (low + high) // 2 if turn % 3 == 2 else line + turn % 3
        middle = min(max(guess, low + 1), high - 1)
        at_middle = n_bytes(middle)
        if at_middle <= capacity:
            low, at_low = middle, at_middle
        else:
            high, at_high = middle, at_middle
        turn += 1
    return low
