"""Values in the sentences of diagnostics: alternatives as people write them, and the divisors of a size."""

from __future__ import annotations

from collections.abc import Iterable
from math import isqrt

MAX_SHOWN = 10  # alternatives in one sentence


def either(alternatives: Iterable[object], word: str = "or") -> str:
    """`1, 2 or 4`."""
    *others, last = map(str, alternatives)
    return f"{', '.join(others)} {word} {last}" if others else last


def divisors(n: int, near: int) -> list[int]:
    """The divisors of `n` in order; of many, those nearest to `near`."""
    small = [d for d in range(1, isqrt(n) + 1) if n % d == 0]
    found = sorted({*small, *(n // d for d in small)})
    return sorted(sorted(found, key=lambda d: abs(d - near))[:MAX_SHOWN])
