"""Numbers as text and back: fixed examples, then laws over all integers."""

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archc import units

NATURALS = st.integers(min_value=0, max_value=10**28)


@pytest.mark.parametrize(
    ("n", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1k"),
        (16_384, "16.38k"),
        (129_135_360, "129.1M"),
        (999_949_999, "999.9M"),
        (999_950_000, "1B"),
        (7_000_000_000, "7B"),
        (51_570_323_328, "51.57B"),
        (398_555_145_696, "398.6B"),
        (1_234_567 * 10**12, "1,234,567T"),
        (-51_570_323_328, "-51.57B"),
    ],
)
def test_count(n: int, text: str) -> None:
    assert units.count(n) == text


@pytest.mark.parametrize(
    ("n", "text"),
    [
        (0, "0 B"),
        (1023, "1,023 B"),
        (1024, "1 KiB"),
        (9_175_040, "8.75 MiB"),
        (2**30 - 1, "1 GiB"),
        (4_294_967_296, "4 GiB"),
        (101_199_118_336, "94.25 GiB"),
        (1010 * 2**30, "1,010 GiB"),
        (2**60 * 5000, "5,000 EiB"),
    ],
)
def test_binary_bytes(n: int, text: str) -> None:
    assert units.binary_bytes(n) == text


@pytest.mark.parametrize(("n", "text"), [(7, "7 FLOP"), (1_200_000_000_000, "1.2 TFLOP"), (2 * 10**21, "2 ZFLOP")])
def test_flops(n: int, text: str) -> None:
    assert units.flops(n) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ns"),
        (1.25e-3, "1.25 ms"),
        (0.9999, "1 s"),
        (2.5e-6, "2.5 µs"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (245, "4 min 05 s"),
        (3599.7, "1 h 00 min"),
        (11_220, "3 h 07 min"),
        (86_399, "1 d 0 h"),
        (12.25 * 86_400, "12 d 6 h"),
        (-90, "-1 min 30 s"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert units.duration(seconds) == text


def test_exact_and_percent() -> None:
    assert units.exact(51_570_323_328) == "51,570,323,328"
    assert units.percent(12_110_311_296, 51_570_323_328) == "23.5%"
    assert units.percent(1, 1) == "100%"
    assert units.percent(0, 0) == "0%"


@pytest.mark.parametrize(
    ("text", "n"),
    [
        ("80GiB", 80 * 2**30),
        ("80 GB", 80 * 10**9),
        (" 1.5MiB ", 3 * 2**19),
        ("0.1KiB", 102),
        ("512", 512),
        ("1,024 B", 1024),
        ("141kB", 141_000),
    ],
)
def test_parse_bytes(text: str, n: int) -> None:
    assert units.parse_bytes(text) == n


@pytest.mark.parametrize(
    ("text", "n"),
    [("256Ki", 262_144), ("1.5M", 1_500_000), ("51,570,323,328", 51_570_323_328), ("7B", 7 * 10**9), ("2G", 2 * 10**9)],
)
def test_parse_count(text: str, n: int) -> None:
    assert units.parse_count(text) == n


@pytest.mark.parametrize(
    "text", ["", "GiB", "-1GiB", "1e9", "80G", "80gib", "1.", ".5GiB", "1,02 B", "٣GiB", "9" * 5000]
)
def test_parse_bytes_says_what_it_accepts(text: str) -> None:
    with pytest.raises(ValueError, match=r"80GiB \(2\^30\), 80GB \(10\^9\)") as caught:
        units.parse_bytes(text)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("text", ["", "many", "1.5", "0.3Ki", "-4", "4K", "1e9", "12x"])
def test_parse_count_says_what_it_accepts(text: str) -> None:
    with pytest.raises(ValueError, match=r"256Ki \(1024\)|not a whole number"):
        units.parse_count(text)


@given(NATURALS)
def test_plain_and_separated_digits_parse_to_themselves(n: int) -> None:
    assert units.parse_count(str(n)) == units.parse_count(units.exact(n)) == n
    assert units.parse_bytes(str(n)) == units.parse_bytes(units.exact(n)) == n


@given(NATURALS)
def test_text_keeps_four_digits(n: int) -> None:
    # Half a unit of the fourth digit is at most 0.05 % of the value.
    assert 2000 * abs(units.parse_count(units.count(n)) - n) <= n
    if n < 2**50:  # parse_bytes knows units up to TiB, as memory does; it drops a fraction of a byte
        assert 2000 * abs(units.parse_bytes(units.binary_bytes(n)) - n) <= n + 2000


@given(st.integers(1, 1023), st.sampled_from(["KiB", "MiB", "GiB", "TiB"]))
def test_whole_units_round_trip_exactly(n: int, unit: str) -> None:
    assert units.binary_bytes(units.parse_bytes(f"{n}{unit}")) == f"{n:,} {unit}"


@given(NATURALS, NATURALS)
@settings(max_examples=200)
def test_larger_numbers_never_read_smaller(a: int, b: int) -> None:
    low, high = sorted((a, b))
    assert units.parse_count(units.count(low)) <= units.parse_count(units.count(high))


@given(st.text(max_size=30))
def test_any_text_parses_or_is_a_value_error(text: str) -> None:
    for parse in (units.parse_bytes, units.parse_count):
        with suppress(ValueError):
            assert parse(text) >= 0
