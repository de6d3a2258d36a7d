"""Threads that the migrations of one host have together: a pipe with a byte for each, as make's jobserver has it.

Each migration is a process, so that a pool for all of them is a number that all of them keep to. Whoever takes a byte
may work, and puts it back. A process that is killed meanwhile takes its byte along.
"""

from __future__ import annotations

import os
import select
from dataclasses import dataclass
from typing import Final

from migpool.core.cancel import CancelSwitch
from migpool.errors import UsageError

VARIABLE: Final = "MIGPOOL_HOST_THREADS"
"""Of the environment: the descriptors of the pipe's two ends, for a process that inherits them."""
TICK: Final = 0.1
"""Seconds between two looks whether the migration was cancelled."""


@dataclass(frozen=True, slots=True)
class HostThreads:
    """The pipe's ends. ``reading`` does not block: others may be faster."""

    reading: int
    writing: int

    @classmethod
    def of(cls, count: int) -> HostThreads:
        """So many threads, for the processes that are given the descriptors. Close it."""
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        os.write(writing, bytes(count))
        return cls(reading, writing)

    @classmethod
    def inherited(cls) -> HostThreads | None:
        """Those that this process was given; ``None`` if it was given none.

        Raises:
            UsageError: what it was given is none.
        """
        text = os.environ.get(VARIABLE)
        if not text:
            return None
        try:
            reading, writing = map(int, text.split(","))
            os.fstat(reading)
            os.fstat(writing)
        except (ValueError, OSError):
            raise UsageError(f"{VARIABLE} is {text!r}: it must be two descriptors that are open here") from None
        return cls(reading, writing)

    def environment(self) -> dict[str, str]:
        """What tells a process that inherits them."""
        return {VARIABLE: f"{self.reading},{self.writing}"}

    def take(self, switch: CancelSwitch) -> bool:
        """Wait for one; false once the migration was cancelled."""
        while not switch.thrown:
            if select.select([self.reading], (), (), TICK)[0]:
                try:
                    os.read(self.reading, 1)
                except BlockingIOError:
                    continue
                return True
        return False

    def give(self) -> None:
        """Put it back."""
        os.write(self.writing, b"\0")

    def close(self) -> None:
        os.close(self.reading)
        os.close(self.writing)
