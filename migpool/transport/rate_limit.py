"""A limit on the rate of sending, over all channels together: a token bucket.

Guarantees:

1. From any moment on, at most ``rate`` bytes a second are let through, and ``BURST`` seconds' worth more.
2. A packet passes when the bucket is not empty, also if it is larger than what is in it, and is paid for afterwards.
3. ``wait`` ends at once when the switch is thrown, and when the limit is lifted.
"""

from __future__ import annotations

import time
from threading import Condition, Lock

from migpool.core.cancel import CancelSwitch

BURST = 0.05
"""Seconds for which unused rate is kept."""


class RateLimit:
    """Lets bytes through at a rate.

    Arguments:
        rate: bytes a second.
        switch: ends every wait.

    Attributes:
        lifted: whether there is no limit any more.
    """

    def __init__(self, rate: int, switch: CancelSwitch) -> None:
        self._rate = rate
        self._switch = switch
        self._changed = Condition(Lock())
        self.lifted = False
        self._filled = time.monotonic()
        self._tokens = rate * BURST
        switch.on_cancel(self._wake)

    def wait(self, size: int) -> None:
        """Return when ``size`` bytes may be sent.

        Raises:
            Cancelled: the switch has been thrown.
        """
        with self._changed:
            while not self.lifted:
                self._switch.check()
                now = time.monotonic()
                self._tokens = min(self._tokens + (now - self._filled) * self._rate, self._rate * BURST)
                self._filled = now
                if self._tokens > 0:
                    # Into the red, by one packet at most: so a bucket that is smaller than a packet lets it pass.
                    self._tokens -= size
                    return
                self._changed.wait(-self._tokens / self._rate + 1e-4)

    def lift(self) -> None:
        """No limit from now on: the machine stands still."""
        with self._changed:
            self.lifted = True
            self._changed.notify_all()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()
