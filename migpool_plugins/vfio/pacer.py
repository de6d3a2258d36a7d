"""How long a device's work takes: rates, latencies, and a lock that devices share.

Guarantees:

* Work ends at a deadline that is computed from the work before it, not from when a thread happened to wake: an
  overslept timer shortens the next wait, and the mean rate is the profile's.
* Nothing spins, and every wait ends at once when the transfer is cancelled (a wait for the shared lock, when the
  holders before it have finished their chunk).
* With a shared lock, the times of the holders follow each other without overlap; the record proves it.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
import time
from typing import Final

READ_ALLOWANCE: Final = 1e-3
"""Seconds. A device produces its next chunk while the one before is copied out. How long a reader took to come for it
cannot be told from the copy, so lateness up to this much counts as the copy, and more as the reader's own."""

WRITE_ALLOWANCE: Final = 300e-6
"""Seconds. A write's answer takes a moment to reach the caller, which a real write would not lose: lateness of its
return up to this much is taken off the next write. More is a delay in the migrating process, and stays."""

_PR_SET_TIMERSLACK: Final = 29


class SharedLock:
    """A lock, of a kernel driver say, that the devices of one entry hold in turn.

    Attributes:
        free_at: when its last holder was due to be finished; the next one's work cannot begin earlier.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.free_at = 0.0


class Pacer:
    """The time of one transfer of one device.

    Arguments:
        latency: seconds of each piece of work, besides its bytes.
        rate: bytes per second; 0: no limit.
        shared: the lock to hold meanwhile.
        cancelled: set to end every wait.

    Attributes:
        due: when the last work was due to end, CLOCK_MONOTONIC in seconds.
        record: when each piece of work began and ended, the lock being held.
    """

    def __init__(self, latency: float, rate: float, shared: SharedLock | None, cancelled: threading.Event) -> None:
        self._latency = latency
        self._per_byte = 1 / rate if rate else 0.0
        self._shared = shared
        self._cancelled = cancelled
        self.due = 0.0
        self.record: list[tuple[float, float]] = []

    def work(self, length: int, since: float) -> None:
        """Wait until ``length`` bytes are done, counted from ``since`` or from when the shared lock was due free."""
        shared = self._shared
        with shared.lock if shared is not None else contextlib.nullcontext():
            began = time.monotonic()
            if shared is not None:
                since = max(since, shared.free_at)
            self.due = since + self._latency + length * self._per_byte
            left = self.due - began
            if left > 0:
                self._cancelled.wait(left)
            ended = time.monotonic()
            if shared is not None:
                shared.free_at = min(self.due, ended)
            self.record.append((began, ended))


def sharpen_timers() -> None:
    """Let timers of this thread, and of those it starts, fire on time: Linux may delay them by 50 us otherwise."""
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
