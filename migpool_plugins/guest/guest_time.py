"""The guest's time: the clock that it reads, and how fast it writes.

The clock counts nanoseconds, forward only, and goes on across a migration. On one host it is CLOCK_MONOTONIC and an
offset, so a migration takes for the guest just as long as it takes. On another host, whose CLOCK_MONOTONIC has another
beginning, the offset is made anew from the wall clock.
"""

from __future__ import annotations

import time
import uuid
from pathlib import Path

INTERVAL = 0.005
"""Seconds from one batch to the next."""


def new_offset() -> int:
    """Return the offset to CLOCK_MONOTONIC, in nanoseconds, of a clock that shows the wall clock's time."""
    return time.time_ns() - time.monotonic_ns()


def host_number() -> int:
    """A number of 63 bits for this boot of this kernel; another one each time where there is no such thing."""
    try:
        text = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return uuid.UUID(text).int >> 65
    except (OSError, ValueError):
        return uuid.uuid4().int >> 65


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
        """How long to rest after a batch that began and ended at these moments, in seconds by any clock."""
        awake = 1.0 - self.throttle
        interval = self._interval / awake
        # A vCPU that woke a little late keeps to the beat; one that could not keep it does not hurry afterwards.
        due = (self._due if began - self._due < interval else began) + interval
        if self.throttle:
            due = max(due, now + (now - began) * self.throttle / awake)
        self._due = max(due, now)
        return self._due - now
