"""In which order the guest writes its pages, and so which step must have written each page last.

The order is a closed form, the same as in ``program/program.S``::

    place(x, mask):  y = x * multiplier & mask;  y ^= y >> 7 (only scattered);  y = y * multiplier & mask

With an odd multiplier this maps the numbers below a power of two onto themselves, so that so many steps in a row write
every page once. In a pattern with hot pages seven of eight steps go to these, in the order of the steps' own numbers;
the eighth goes on through the whole region.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Words: TypeAlias = "NDArray[np.uint64]"

HOT_PERIOD = 8
FACTOR: Final = 0x9E3779B97F4A7C15
"""G of the program: 2**64 over the golden ratio, odd."""
_WEIGHTS: Final[Words] = np.arange(512, dtype=np.uint64) * np.uint64(FACTOR) + np.uint64(1)
_AT_ONCE: Final = 1024
"""Pages whose content is computed at once: what is made of them stays in the cache."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """One vCPU's order.

    Arguments:
        pages: of its region, a power of two.
        hot_pages: a power of two from 8 on, or 0 for none.
        multiplier: odd; 1 for pages in their order.
        scatter: whether bits are mixed too.
    """

    pages: int
    hot_pages: int
    multiplier: int
    scatter: bool

    @property
    def period(self) -> int:
        """Every so many steps one goes on through the whole region."""
        return HOT_PERIOD if self.hot_pages else 1

    def places(self, numbers: Words, pages: int) -> Words:
        """The pages that these numbers are mapped to, among the first ``pages``."""
        mask = np.uint64(pages - 1)
        multiplier = np.uint64(self.multiplier)
        found = numbers * multiplier & mask
        if self.scatter:
            found ^= found >> np.uint64(7)
        return found * multiplier & mask

    def last_written(self, steps: int) -> Words:
        """Which step wrote each page last, when so many steps have been done; 0 for none."""
        last = np.zeros(self.pages, dtype=np.uint64)
        whole = steps // self.period
        numbers = np.arange(max(0, whole - self.pages) + 1, whole + 1, dtype=np.uint64)
        last[self.places(numbers, self.pages)] = numbers * np.uint64(self.period)
        if self.hot_pages:
            numbers = np.arange(max(0, steps - self.hot_pages) + 1, steps + 1, dtype=np.uint64)
            numbers = numbers[numbers % np.uint64(HOT_PERIOD) != 0]
            places = self.places(numbers, self.hot_pages)
            last[places] = np.maximum(last[places], numbers)
        return last

    def overwritten(self, steps: int) -> int:
        """The sum of the numbers of all steps whose page has been written again since, modulo 2**64.

        Each step's number stands in a page until that is written again; so it is the sum of all numbers, less that of
        those which still stand somewhere.
        """
        standing = int(self.last_written(steps).sum(dtype=np.uint64))
        return (steps * (steps + 1) // 2 - standing) & (1 << 64) - 1


def contents(steps: Words, *, into: Words) -> None:
    """Write the content of pages: word j of a page is the step that wrote it last, times 1 + j * FACTOR.

    Arguments:
        steps: for each page.
        into: a row of 512 words for each page.
    """
    for begin in range(0, len(steps), _AT_ONCE):
        np.multiply(steps[begin : begin + _AT_ONCE, np.newaxis], _WEIGHTS, out=into[begin : begin + _AT_ONCE])


def differing(steps: Words, found: Words) -> int | None:
    """The first page whose content is not what :func:`contents` would write; ``None`` if all are."""
    for begin in range(0, len(steps), _AT_ONCE):
        wanted = steps[begin : begin + _AT_ONCE, np.newaxis] * _WEIGHTS
        wrong = np.flatnonzero((wanted != found[begin : begin + _AT_ONCE]).any(axis=1))
        if len(wrong):
            return begin + int(wrong[0])
    return None
