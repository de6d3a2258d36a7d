"""Sizes, rates and durations: read as people write them ("64MiB", "1.25GiB/s", "5ms"), and written as they read them.

What a size, a rate or a duration looks like, on the terminal, in a report or in a picture, is decided here alone.
"""

from __future__ import annotations

import re
from typing import Final

KIB: Final = 1 << 10
MIB: Final = 1 << 20
GIB: Final = 1 << 30

RATE_UNIT: Final = MIB
RATE_NAME: Final = "MiB/s"
"""What rates are written in: so many bytes a second, and its name."""

_UNITS: Final = {"": 1, "B": 1, "KiB": KIB, "MiB": MIB, "GiB": GIB, "TiB": 1 << 40}
_LARGEST_FIRST: Final = [(unit, name) for name, unit in reversed(_UNITS.items()) if name]
# Multiplied by 10 to a power as text, "5ms" is the nearest number to five thousandths, which 5 * 1e-3 need not be.
_SECONDS: Final = {"us": "e-6", "ms": "e-3", "s": ""}
_QUANTITY: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]*)")
_BITS: Final = {"kbit": 125, "Mbit": 125_000, "Gbit": 125_000_000}
_HOW: Final = 'write a whole number of bytes, or text such as "64MiB" (B, KiB, MiB, GiB, TiB)'


def parse_size(value: object) -> int:
    """Return a number of bytes.

    Arguments:
        value: a whole number, or text: a number with B, KiB, MiB, GiB or TiB.

    Raises:
        ValueError: it is neither; the message says how to write it.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 0:
            raise ValueError(f"it is negative: {_HOW}")
        return value
    match = _QUANTITY.fullmatch(value) if isinstance(value, str) else None
    if match is None or match[2] not in _UNITS:
        raise ValueError(f"{value!r} is no size: {_HOW}")
    size = float(match[1]) * _UNITS[match[2]]
    if not size.is_integer():
        raise ValueError(f"{value!r} is no whole number of bytes: {_HOW}")
    return int(size)


def parse_rate(value: object) -> int:
    """Return a number of bytes per second; as :func:`parse_size`, and text may end with ``/s``.

    As networks' rates are given, it may be in bits, too: kbit, Mbit or Gbit, of 1000, a million and 1000 million bits.
    """
    text = value.removesuffix("/s") if isinstance(value, str) else ""
    match = _QUANTITY.fullmatch(text)
    if match is None or match[2] not in _BITS:
        return parse_size(text or value)
    rate = float(match[1]) * _BITS[match[2]]
    if not rate.is_integer():
        raise ValueError(f"{value!r} is no whole number of bytes a second")
    return int(rate)


def parse_duration(value: object) -> float:
    """Return seconds.

    Arguments:
        value: a number of seconds that is not negative, or text: a number with us, ms or s.

    Raises:
        ValueError: it is neither; the message says how to write it.
    """
    if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
        return float(value)
    match = _QUANTITY.fullmatch(value) if isinstance(value, str) else None
    if match is None or match[2] not in _SECONDS:
        raise ValueError(f'{value!r} is no duration: write a number of seconds, or text such as "5ms" (us, ms, s)')
    return float(match[1] + _SECONDS[match[2]])


def written_size(count: int) -> str:
    """A whole number of bytes as a scenario would have it, exact: "64MiB", "1000"."""
    exact = (f"{count // unit}{name}" for unit, name in _LARGEST_FIRST if unit > 1 and not count % unit)
    return next(exact, f"{count}") if count else "0"


def format_size(count: float) -> str:
    """A number of bytes: "512 B", "3.0 MiB"."""
    unit, name = next((pair for pair in _LARGEST_FIRST if count >= pair[0]), (1, "B"))
    value = count / unit
    return f"{value:.{0 if unit == 1 or value >= 100 else 1}f} {name}"


def format_share(used: float, whole: float) -> str:
    """Two numbers of bytes in the unit of the second: "3/8 MiB"."""
    unit, name = next((pair for pair in _LARGEST_FIRST if whole >= pair[0]), (1, "B"))
    return f"{used / unit:.3g}/{whole / unit:.3g} {name}"


def format_rate(bytes_a_second: float) -> str:
    """A number of bytes per second: "512 MiB/s"; the page's too."""
    return f"{bytes_a_second / RATE_UNIT:.0f} {RATE_NAME}"


def format_duration(seconds: float) -> str:
    """How long something took, in three digits or four: "3.20 ms", "32.0 ms", "1234 ms", "12.3 s"; the page's too."""
    if seconds >= 10:
        return f"{seconds:.1f} s"
    value = seconds * 1e3
    return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f} ms"


def count_of(count: int, thing: str) -> str:
    """A number of things: "1 device", "3 devices". ``thing``: one of them, to which an s is added for more."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def format_moment(nanoseconds: int) -> str:
    """When something was, among moments that are to be told apart: "3.2 ms", "12.345 s"."""
    return f"{nanoseconds / 1e6:.1f} ms" if nanoseconds < 10**9 else f"{nanoseconds / 1e9:.3f} s"
