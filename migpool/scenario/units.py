"""Sizes and rates as people write them: "64MiB", "1.25GiB/s", or plain numbers."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["parse_rate", "parse_size"]

_UNITS: Final = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_QUANTITY: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]*)")
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
    """Return a number of bytes per second; as :func:`parse_size`, and text may end with ``/s``."""
    return parse_size(value.removesuffix("/s") if isinstance(value, str) else value)
