"""Two calls that do the same, timed in turns: what a row of the tables here is made from.

Each round times both, every second one in the opposite order, and a ratio is taken within the round: load from outside
falls on both. The median over the rounds counts; the least and the most are shown beside it.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Paired", "Table", "paired", "seconds"]


def seconds(call: Callable[[], object]) -> float:
    """The time of one call, without the collector: which round pays for it is chance."""
    gc.collect()
    gc.disable()
    try:
        begun = time.perf_counter()
        call()
        return time.perf_counter() - begun
    finally:
        gc.enable()


@dataclass(frozen=True, slots=True)
class Paired:
    """What the rounds gave.

    Arguments:
        ours: median seconds of the one.
        theirs: median seconds of the other.
        ratios: theirs over ours of each round, sorted: over 1 where ours is the faster one.
    """

    ours: float
    theirs: float
    ratios: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """The median."""
        return statistics.median(self.ratios)


def paired(ours: Callable[[], object], theirs: Callable[[], object], rounds: int) -> Paired:
    """Call both once to warm up, then time them in turns."""
    times: list[tuple[float, float]] = []
    ours()
    theirs()
    for number in range(rounds):
        if number % 2:
            other = seconds(theirs)
            times.append((seconds(ours), other))
        else:
            own = seconds(ours)
            times.append((own, seconds(theirs)))
    own_times, their_times = zip(*times, strict=True)
    found = sorted(other / own for own, other in times)
    return Paired(statistics.median(own_times), statistics.median(their_times), tuple(found))


class Table:
    """Collects rows, to be printed when all are there.

    Arguments:
        title: what is measured, with its unit.
        theirs: what the second column is.
        ours: what the third is.
    """

    def __init__(self, title: str, theirs: str, ours: str) -> None:
        self._lines = [f"{title:44}{theirs:>12}{ours:>12}{'ratio':>8}{'least':>8}{'most':>8}"]

    def add(self, name: str, found: Paired, unit: float) -> None:
        """Add a row; times are shown in units of so many seconds."""
        self._lines.append(
            f"{name:44}{found.theirs / unit:12.2f}{found.ours / unit:12.2f}{found.ratio:8.2f}{found.ratios[0]:8.2f}"
            f"{found.ratios[-1]:8.2f}"
        )

    def __str__(self) -> str:
        return "\n".join(self._lines)
