"""Integers as text, and text as integers: the only place where a number becomes GiB, TFLOP or "51.57B".

Everything is computed on integers, so that no number is off by a rounded power of two. Bytes are binary
(`4 GiB` is 2^32), counts and FLOPs decimal. Output keeps four significant digits and drops trailing zeros;
`exact` is for readers who want them all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

SIGNIFICANT_DIGITS = 4
DURATION_DIGITS = 3

_COUNT_SUFFIXES = ("", "k", "M", "B", "T")
_BYTE_SUFFIXES = (" B", " KiB", " MiB", " GiB", " TiB", " PiB", " EiB")
_FLOP_SUFFIXES = (" FLOP", " kFLOP", " MFLOP", " GFLOP", " TFLOP", " PFLOP", " EFLOP", " ZFLOP", " YFLOP")
_DURATION_SUFFIXES = (" ns", " µs", " ms", " s")

_BINARY = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
_COUNT_UNITS: Mapping[str, int] = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "B": 10**9, "T": 10**12, **_BINARY}
_BYTE_UNITS: Mapping[str, int] = {
    "": 1,
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    **{f"{prefix}B": factor for prefix, factor in _BINARY.items()},
}

# Digits are capped: a longer literal is a slip, and int() of a hostile one takes quadratic time.
_LITERAL = re.compile(
    r"\s*(?P<whole>[0-9]{1,3}(?:,[0-9]{3}){1,9}|[0-9]{1,30})(?:\.(?P<fraction>[0-9]{1,30}))?\s*(?P<unit>[A-Za-z]*)\s*"
)


def exact(n: int) -> str:
    """All digits in groups of three: `51,570,323,328`."""
    return f"{n:,}"


def count(n: int) -> str:
    """A count in powers of 1000: `51.57B`, `129.1M`, `16.38k`, `999`."""
    return _scaled(n, 1000, _COUNT_SUFFIXES)


def binary_bytes(n: int) -> str:
    """Bytes in powers of 1024: `4 GiB`, `8.75 MiB`, `1023 B`."""
    return _scaled(n, 1024, _BYTE_SUFFIXES)


def flops(n: int) -> str:
    """Floating-point operations in powers of 1000, a multiply-add being two: `1.2 TFLOP`."""
    return _scaled(n, 1000, _FLOP_SUFFIXES)


def duration(seconds: float) -> str:
    """A time: `1.25 ms` or `59.9 s` below a minute, then two whole units: `4 min 05 s`, `3 h 07 min`, `12 d 6 h`.

    Raises ValueError or OverflowError for a time that is not a number or not finite.
    """
    if seconds < 0:
        return "-" + duration(-seconds)
    nanoseconds = round(seconds * 1e9)
    if nanoseconds < 59_950_000_000:  # from here on three digits read 60.0 s
        return _scaled(nanoseconds, 1000, _DURATION_SUFFIXES, DURATION_DIGITS)
    whole_seconds = round(seconds)
    if whole_seconds < 3600:
        return f"{whole_seconds // 60} min {whole_seconds % 60:02d} s"
    whole_minutes = round(seconds / 60)
    if whole_minutes < 24 * 60:
        return f"{whole_minutes // 60} h {whole_minutes % 60:02d} min"
    whole_hours = round(seconds / 3600)
    return f"{whole_hours // 24} d {whole_hours % 24} h"


def percent(part: int, whole: int) -> str:
    """A share with one decimal, `23.5%`; `0%` of nothing."""
    tenths = _rounded_ratio(1000 * part, whole) if whole else 0
    return _decimal(tenths, 1) + "%"


def parse_count(text: str) -> int:
    """`262144`, `262,144`, `256Ki` (1024) or `1.5M` (1000) as an integer.

    Raises ValueError, whose message says what is accepted, for anything else and for a number that is not whole.
    """
    numerator, denominator = _parse(text, _COUNT_UNITS, "count", "a number such as 4096, 256Ki (1024) or 1.5M (1000)")
    if numerator % denominator:
        raise ValueError(f"{text.strip()!r} is not a whole number")
    return numerator // denominator


def parse_bytes(text: str) -> int:
    """`80GiB` (2^30), `80 GB` (10^9), `1.5MiB` or `512` as bytes; a fraction of a byte is dropped.

    Raises ValueError, whose message says what is accepted, for anything else.
    """
    numerator, denominator = _parse(text, _BYTE_UNITS, "size", "a number such as 80GiB (2^30), 80GB (10^9) or 4096")
    return numerator // denominator


def _parse(text: str, units: Mapping[str, int], what: str, accepted: str) -> tuple[int, int]:
    """The value of `text` as numerator and denominator."""
    match = _LITERAL.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:40]!r} is not a {what}; write {accepted}")
    unit = match["unit"]
    if unit not in units:
        known = ", ".join(name for name in units if name)
        raise ValueError(f"{unit[:40]!r} is not a unit of a {what}; write {accepted}; the units are {known}")
    fraction = match["fraction"] or ""
    return int(match["whole"].replace(",", "") + fraction) * units[unit], 10 ** len(fraction)


def _scaled(n: int, step: int, suffixes: Sequence[str], digits: int = SIGNIFICANT_DIGITS) -> str:
    """`n` in the largest unit that leaves at least 1 before the point, rounded to `digits` significant digits."""
    if n < 0:
        return "-" + _scaled(-n, step, suffixes, digits)
    power = 0
    while power + 1 < len(suffixes) and n >= step ** (power + 1):
        power += 1
    decimals = _decimals(n, step**power, digits)
    units = _rounded_ratio(n * 10**decimals, step**power)
    if units >= step * 10**decimals and power + 1 < len(suffixes):  # 999.96k is 1M
        return "1" + suffixes[power + 1]
    return _decimal(units, decimals) + suffixes[power]


def _decimals(n: int, unit: int, digits: int) -> int:
    """How many places after the point leave `digits` significant digits of n / unit; none for whole units."""
    return 0 if unit == 1 else max(0, digits - len(str(n // unit)))


def _rounded_ratio(numerator: int, denominator: int) -> int:
    """The nearest integer, halves away from zero."""
    return (2 * numerator + denominator) // (2 * denominator)


def _decimal(units: int, decimals: int) -> str:
    """`units / 10**decimals` without trailing zeros."""
    whole, fraction = divmod(units, 10**decimals)
    digits = f"{fraction:0{decimals}d}".rstrip("0") if decimals else ""
    return f"{whole:,}.{digits}" if digits else f"{whole:,}"
