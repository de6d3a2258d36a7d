"""What the short profile leaves to the long one, where a product of choices or many examples prove little more."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any, Final

from hypothesis import settings

from tests.support import LONG, PROFILE

FEWER: Final = settings() if PROFILE == "search" else settings(max_examples=60 if LONG else 8)
"""For a property of which every example takes long."""


def every_value(*axes: Sequence[Any]) -> list[tuple[Any, ...]]:
    """The product of the axes; in the short profile as few combinations as have every value of each."""
    if LONG:
        return list(product(*axes))
    return [tuple(axis[turn % len(axis)] for axis in axes) for turn in range(max(map(len, axes)))]


def every_pair(first: Sequence[Any], second: Sequence[Any], third: Sequence[Any]) -> list[tuple[Any, Any, Any]]:
    """The product of the axes; in the short profile combinations that have every pair of values of two axes.

    Arguments:
        third: no longer than any other.
    """
    assert len(third) <= min(len(first), len(second))
    if LONG:
        return list(product(first, second, third))
    return [(a, b, third[(m + n) % len(third)]) for m, a in enumerate(first) for n, b in enumerate(second)]
