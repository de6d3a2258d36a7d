"""What the kernel says of a thread: how much processor time it has used, and whether it is runnable.

A thread in a blocking call is not runnable. To the kernel, one that waits for the interpreter lock is not either; but
its processor time shows that it computes in turns with others.
"""

from __future__ import annotations

import os
import threading
import time

RUNNABLE = b"R"


class ThreadState:
    """The calling thread, to be looked at by others."""

    __slots__ = ("_clock", "_delays", "_path")

    def __init__(self) -> None:
        self._clock = time.pthread_getcpuclockid(threading.get_ident())
        folder = f"/proc/self/task/{threading.get_native_id()}"
        self._path = f"{folder}/stat"
        self._delays = f"{folder}/schedstat"

    def computed(self) -> int:
        """Nanoseconds of processor time that it has used; 0 once the kernel has forgotten it."""
        try:
            return time.clock_gettime_ns(self._clock)
        except OSError:
            return 0

    def runnable(self) -> bool:
        """Whether it has a processor or waits for one. False where there is no /proc that would say so."""
        # "ID (NAME) STATE ..."; the name may hold parentheses, what follows it may not.
        return _read(self._path).rpartition(b") ")[2][:1] == RUNNABLE

    def delayed(self) -> int:
        """Nanoseconds for which it wanted a processor and had none; 0 where there is no /proc that would say so."""
        # "COMPUTED DELAYED TIMES"
        words = _read(self._delays).split()
        return int(words[1]) if len(words) == 3 else 0


def _read(path: str) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(fd, 512)
    except OSError:
        return b""
    finally:
        os.close(fd)
