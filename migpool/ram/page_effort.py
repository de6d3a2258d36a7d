"""What the jobs of the memory really sent, and which part of their time that took.

A page of zeros is looked through and named, but crosses as eight bytes. If its size counted, the rate would be too
high, and the expected downtime too short; if only its time counted, the rate would be too low. So neither does: all
that is left at the stop is taken to have content.

The time is the jobs' own, on all threads together. The zeros' part of it are the looks at packets, by how many of their
pages hold zeros, and the sending of packets that hold nothing else.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from migpool.wire.rampacket import PagePacket


class PageEffort:
    """Counts what the memory's jobs did, on any thread.

    Attributes:
        bytes: of pages that have been sent so far.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.bytes = self._counted = self._nanoseconds = self._for_zeros = 0

    def looked(self, packets: Sequence[PagePacket], took: int) -> None:
        """Packets were made, in so many nanoseconds."""
        zero = sum([packet.zero for packet in packets])
        self._add(0, took, took * zero // (zero + sum([packet.normal for packet in packets])))

    def sent(self, packets: Sequence[PagePacket], took: int) -> None:
        """Packets were sent, in so many nanoseconds."""
        size = sum([packet.size for packet in packets])
        self._add(size, took, 0 if size else took)

    def since(self) -> tuple[int, float]:
        """Return what has been sent since this was called last, and which part of the time that took."""
        with self._lock:
            sent, spent, zeros = self.bytes - self._counted, self._nanoseconds, self._for_zeros
            self._counted, self._nanoseconds, self._for_zeros = self.bytes, 0, 0
        return sent, 1.0 - zeros / spent if spent else 1.0

    def _add(self, size: int, took: int, for_zeros: int) -> None:
        with self._lock:
            self.bytes += size
            self._nanoseconds += took
            self._for_zeros += for_zeros
