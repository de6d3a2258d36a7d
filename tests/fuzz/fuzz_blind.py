"""Fuzzing without atheris: seeds changed at random, in this process, at the speed of what is fuzzed.

Nothing counts branches here, which costs several times as much as most parsers: this is for many inputs, guidance for
new ones. What atheris found new before (its corpus) is changed, too. Smaller inputs are taken more often: in a large
one most changes hit what stands there a hundred times, and each costs as much as many small ones.
"""

from __future__ import annotations

import random
import signal
import time
from bisect import bisect
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from types import FrameType
from typing import Final

from tests.fuzz.fuzz_budget import CostsTooMuch, time_within

__all__ = ["Changes", "fuzz_blindly"]

CHANGES: Final = 4
LARGE: Final = 1000
"""Bytes from which on a seed is taken half as often when it is twice as large."""
LENGTHS: Final = (1, 2, 4, 9, 40)
NUMBERS: Final = (bytes(4), b"\xff" * 4, b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\0\1\0\0")
SECONDS: Final = 2.0
"""Of processor time for one input."""
HANGS: Final = 60
"""Seconds; an input that has not ended after twice as many hangs."""


class Changes:
    """Seeds with some of their bytes changed, removed, doubled, or replaced by a part of another seed.

    Arguments:
        seeds: in any order; one is taken the less often, the larger it is.
        begin: the same number makes the same changes.
    """

    def __init__(self, seeds: Sequence[bytes], begin: int) -> None:
        self._seeds = seeds
        self._weights = list(accumulate(1 / (len(seed) + LARGE) for seed in seeds))
        # What draws integers takes several times as long, and most parsers no longer than that.
        self._draw = random.Random(begin).random

    def __next__(self) -> bytes:
        draw = self._draw
        data = bytearray(self._seed())
        for _ in range(1 + int(CHANGES * draw())):
            at = int((len(data) + 1) * draw())
            end = at + LENGTHS[int(len(LENGTHS) * draw())]
            match int(6 * draw()):
                case 0 if at < len(data):
                    data[at] = int(256 * draw())
                case 1 if at < len(data):
                    data[at] ^= 1 << int(8 * draw())
                case 2:
                    del data[at:end]
                case 3:
                    data[at:at] = data[at:end]
                case 4:
                    data[at : at + 4] = NUMBERS[int(len(NUMBERS) * draw())]
                case _:
                    data[at:end] = self._seed()[at : at + int(60 * draw())]
        return bytes(data)

    def _seed(self) -> bytes:
        weights = self._weights
        return self._seeds[min(bisect(weights, weights[-1] * self._draw()), len(weights) - 1)]


def fuzz_blindly(
    target: Callable[[bytes], None],
    seeds: Sequence[bytes],
    begin: int,
    runs: int,
    seconds: float,
    counted: Iterator[None],
    found: Callable[[bytes], Path],
) -> int:
    """Run a target on changed seeds.

    Arguments:
        begin: decides which changes are made: how many inputs there were before.
        runs: end after so many; -1: only the time counts.
        counted: is asked for its next item before each input.
        found: keeps an input that fails, and says where.

    Returns:
        How many inputs there were.

    Raises:
        Exception: what the target raised, with a note where the input is.
    """
    changes = Changes(seeds, begin)
    ends, looked, number, seen = time.monotonic() + seconds, 0.0, 0, -1

    def look(_number: int, _frame: FrameType | None) -> None:
        """See whether it hangs; the first look may be late, where this process was stopped for a while."""
        nonlocal seen
        if seen == number:
            raise CostsTooMuch(f"an input has not ended within {2 * HANGS} s")
        seen = number
        signal.alarm(HANGS)

    signal.signal(signal.SIGALRM, look)
    try:
        while number != runs and (now := time.monotonic()) < ends:
            if now - looked > 1:
                signal.alarm(HANGS)
                looked = now
            data = next(changes)
            next(counted)
            number += 1
            try:
                time_within(target, data, SECONDS)
            except Exception as error:
                error.add_note(f"the input is kept in {found(data)}")
                raise
    finally:
        signal.alarm(0)
    return number
