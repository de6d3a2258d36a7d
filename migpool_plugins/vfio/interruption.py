"""The end of every wait for a device, from any thread, and its taking back.

Guarantees:

* Once a device is interrupted or closed, a poll with the event descriptor ends at once, and ``check`` raises.
* ``interrupt`` may run beside anything, ``close`` included: the event descriptor, and what else an interruption must
  touch, is closed under the one lock, which is held for nothing that blocks. So no descriptor of somebody else's is
  ever written to or shut down.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable

from migpool_plugins.vfio.backend import BackendError

__all__ = ["Interruption"]


class Interruption:
    """What ends the waits of one device.

    Arguments:
        name: what to call the device in an error.

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
        """Wait for so long, or until the device is interrupted.

        Raises:
            BackendError: it is, or it is closed.
        """
        waiting = select.poll()
        waiting.register(self.fd, select.POLLIN)
        waiting.poll(seconds * 1000)
        self.check()

    def interrupt(self, also: Callable[[], None] | None = None) -> None:
        """End every wait, unless that has been done.

        Arguments:
            also: ends waits that do not poll, under the lock; must not block.
        """
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
        """Close the event descriptor; returns false if that has been done.

        Arguments:
            also: closes what else belongs to the device's waits, under the lock.
        """
        with self.lock:
            if self.closed:
                return False
            self.closed = True
            os.close(self.fd)
            if also is not None:
                also()
        return True
