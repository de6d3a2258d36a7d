"""Which step wrote a page last is computed without running anything, and is what a plain run of the steps leaves."""

from __future__ import annotations

import numpy as np
import pytest

from migpool_plugins.guest.pattern import FACTOR, Pattern, contents, differing

PATTERNS = {
    "sequential": Pattern(64, 0, 1, False),
    "random": Pattern(64, 0, 0xDEADBEEF12345679, True),
    "random, many pages": Pattern(1024, 0, 0xDEADBEEF12345679, True),
    "hot": Pattern(64, 16, 0xDEADBEEF12345679, True),
    "all hot": Pattern(64, 64, 0xDEADBEEF12345679, True),
}
STEPS = (0, 1, 7, 8, 63, 64, 65, 700, 5000, 20001)


def places(pattern: Pattern, steps: int) -> list[int]:
    """The page of each step, one after the other as the program does it."""
    found, whole = [], 0
    for step in range(1, steps + 1):
        if pattern.hot_pages and step & 7:
            number, mask = step, pattern.hot_pages - 1
        else:
            whole += 1
            number, mask = whole, pattern.pages - 1
        place = number * pattern.multiplier & mask
        if pattern.scatter:
            place ^= place >> 7
        found.append(place * pattern.multiplier & mask)
    return found


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
@pytest.mark.parametrize("steps", STEPS)
def test_the_last_writer_of_every_page(pattern: Pattern, steps: int) -> None:
    last, overwritten = [0] * pattern.pages, 0
    for step, place in enumerate(places(pattern, steps), 1):
        overwritten += last[place]
        last[place] = step
    assert pattern.last_written(steps).tolist() == last
    assert pattern.overwritten(steps) == overwritten % (1 << 64)


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
def test_every_page_is_written_in_time(pattern: Pattern) -> None:
    assert pattern.last_written(pattern.pages * pattern.period).all()


def test_one_wrong_word_is_found() -> None:
    steps = np.arange(3000, dtype=np.uint64)
    words = np.zeros((3000, 512), dtype=np.uint64)
    contents(steps, into=words)
    assert differing(steps, words) is None
    assert words[7, 3] == 7 * (1 + 3 * FACTOR) % (1 << 64)
    words[2050, 511] ^= np.uint64(1 << 40)
    assert differing(steps, words) == 2050
