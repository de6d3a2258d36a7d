"""Ends every wait for a device, from any thread, until that is taken back.

Guarantees:

* Once a device is interrupted or closed, a poll with the event descriptor ends at once, and ``check`` raises.
* ``interrupt`` may run beside anything, ``close`` included: every descriptor that it touches is closed under the one
  lock, which is held for nothing that blocks. So no descriptor that has since become somebody else's is touched.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable

from migpool_plugins.vfio.backend import BackendError


class Interruption:
    """What ends the waits of one device, which errors call ``name``.

    Attributes:
        fd: an event descriptor, to be polled for input beside what is waited for.
        lock: to be held while a descriptor is closed or exchanged that ``interrupt`` touches.
        raised: whether the device is interrupted.
        closed: whether it is closed.
    """

    def __init__(self, name: str = "the device") -> None:
        self._name = name
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.lock = threading.Lock()
        self.raised = False
        self.closed = False

    def check(self) -> None:
        """Raise :class:`BackendError` if the device is interrupted or closed."""
        if self.closed:
            raise BackendError(f"{self._name} has been closed")
        if self.raised:
            raise BackendError(f"{self._name}'s work was aborted")

    def wait(self, seconds: float) -> None:
        """Wait for so long, or until the device is interrupted or closed, which is a :class:`BackendError`."""
        waiting = select.poll()
        waiting.register(self.fd, select.POLLIN)
        waiting.poll(seconds * 1000)
        self.check()

    def interrupt(self, also: Callable[[], None] | None = None) -> None:
        """End every wait, unless that has been done; ``also`` ends those that do not poll, under the lock, at once."""
        with self.lock:
            if self.closed or self.raised:
                return
            self.raised = True
            os.eventfd_write(self.fd, 1)
            if also is not None:
                also()

    def take_back(self) -> None:
        """Let waits be waits again, unless the device is closed."""
        with self.lock:
            if self.raised and not self.closed:
                self.raised = False
                os.eventfd_read(self.fd)

    def close(self, also: Callable[[], None] | None = None) -> bool:
        """Close the event descriptor, and under the lock ``also`` what else there is; false if that has been done."""
        with self.lock:
            if self.closed:
                return False
            self.closed = True
            os.close(self.fd)
            if also is not None:
                also()
        return True
