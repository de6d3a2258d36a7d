"""How fast a vCPU writes: how long it rests after each batch, and how much longer when it is throttled."""

from __future__ import annotations

__all__ = ["VcpuPace"]

INTERVAL = 0.005
"""Seconds from one batch to the next."""


class VcpuPace:
    """One vCPU's pace. Used by its own thread; only ``throttle`` may be set by another.

    Arguments:
        rate: pages a second; 0 for as many as it can.
        most: the longest batch, in pages.

    Attributes:
        batch: pages in a batch.
        throttle: for which share of the time the vCPU is kept asleep beyond its pace, from 0 to below 1.
    """

    def __init__(self, rate: int, most: int) -> None:
        self.batch = min(most, max(1, round(rate * INTERVAL))) if rate else most
        self._interval = self.batch / rate if rate else 0.0
        self.throttle = 0.0
        self._due = 0.0

    def rest(self, began: float, now: float) -> float:
        """How long to rest after a batch, in seconds.

        Arguments:
            began: when the batch began, in seconds by any clock.
            now: when it ended.
        """
        awake = 1.0 - self.throttle
        interval = self._interval / awake
        # Who woke a little late keeps to the beat; who could not keep it does not hurry afterwards.
        due = (self._due if began - self._due < interval else began) + interval
        if self.throttle:
            due = max(due, now + (now - began) * self.throttle / awake)
        self._due = max(due, now)
        return self._due - now
