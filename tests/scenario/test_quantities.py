"""Sizes, rates and durations as people write them, and as they read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migpool.units import (
    GIB,
    MIB,
    format_duration,
    format_moment,
    format_rate,
    format_share,
    format_size,
    parse_duration,
    parse_rate,
    parse_size,
)


def test_what_is_written_is_read() -> None:
    assert (parse_size("1.5GiB"), parse_size(7), parse_rate("400MiB/s")) == (3 * GIB // 2, 7, 400 * MIB)
    assert (parse_duration("5ms"), parse_duration("100us"), parse_duration(2)) == (0.005, 1e-4, 2.0)


@pytest.mark.parametrize("value", ["5 minutes", "-1s", -1, True, float("nan"), None])
def test_what_is_no_duration_is_told_how_to_be_one(value: object) -> None:
    with pytest.raises(ValueError, match="write a number of seconds"):
        parse_duration(value)


def test_numbers_have_the_digits_that_a_reader_takes_in() -> None:
    assert [format_size(count) for count in (0, 1023, 1536, 3 * MIB, 2 * GIB)] == [
        "0 B",
        "1023 B",
        "1.5 KiB",
        "3.0 MiB",
        "2.0 GiB",
    ]
    assert [format_share(*pair) for pair in ((3 * MIB, 8 * MIB), (0, 0))] == ["3/8 MiB", "0/0 B"]
    assert format_rate(512 * MIB) == "512 MiB/s"
    assert [format_duration(seconds) for seconds in (0.0, 0.0032, 0.032, 1.234, 12.34)] == [
        "0.00 ms",
        "3.20 ms",
        "32.0 ms",
        "1234 ms",
        "12.3 s",
    ]
    assert [format_moment(nanoseconds) for nanoseconds in (3_200_000, 12_345_000_000)] == ["3.2 ms", "12.345 s"]


@given(st.integers(1, 10**6), st.sampled_from(["kbit", "Mbit", "Gbit"]), st.sampled_from(["", "/s"]))
def test_rates_of_networks_are_in_bits_of_a_thousand(count: int, unit: str, ending: str) -> None:
    bits = count * {"kbit": 10**3, "Mbit": 10**6, "Gbit": 10**9}[unit]
    assert parse_rate(f"{count}{unit}{ending}") * 8 == bits
    with pytest.raises(ValueError, match="no size"):
        parse_size(f"{count}{unit}")
