"""The clock that the guest reads after each batch: nanoseconds, forward only, on across a migration.

On one host it is CLOCK_MONOTONIC and an offset, so a migration takes for the guest just as long as it takes. On another
host, whose CLOCK_MONOTONIC means nothing here, the offset is made anew from the wall clock.
"""

from __future__ import annotations

import time
import uuid
from pathlib import Path

__all__ = ["GuestClock", "host_number"]


class GuestClock:
    """A clock with a fixed offset.

    Arguments:
        offset: to CLOCK_MONOTONIC, in nanoseconds.
    """

    def __init__(self, offset: int) -> None:
        self.offset = offset

    @classmethod
    def new(cls) -> GuestClock:
        """The clock of a guest that begins here: it shows the wall clock's time."""
        return cls(time.time_ns() - time.monotonic_ns())

    @classmethod
    def arrived(cls, offset: int, host: int) -> GuestClock:
        """The clock of a guest that has come from somewhere.

        Arguments:
            offset: that it had there.
            host: the :func:`host_number` for which that offset holds.
        """
        return cls(offset) if host == host_number() else cls.new()

    def now(self) -> int:
        """What the guest sees."""
        return time.monotonic_ns() + self.offset


def host_number() -> int:
    """A number of 63 bits for this boot of this kernel; another one each time where there is no such thing."""
    try:
        text = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return uuid.UUID(text).int >> 65
    except (OSError, ValueError):
        return uuid.uuid4().int >> 65
