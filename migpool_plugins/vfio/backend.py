"""What the VFIO device class drives: a kernel driver, a vfio-user server, an emulated device; the contract.

A backend carries out single requests and tells what happened. It decides nothing: order, recovery and what is an error
of the migration are the device class's. Every call has a time limit, and ends at once after ``abort``.

What holds for every backend:

* ``set_state`` returns when the device is there; a request over several arcs that fails leaves it at the step it had
  reached, so ``state`` must be asked afterwards.
* One save or load is one visit of the states in which data moves. The backend opens what it needs when they are
  entered, keeps it from PRE_COPY to STOP_COPY, and closes it when they are left.
* ``read`` blocks until there is data, and returns 0 at the end of what the present state has to give: in PRE_COPY that
  is "nothing more just now".
* A write that failed has left the device in an unknown condition, even if it takes later ones.
* Closing does not leave the migration state.
* ``reset`` returns when the device, or its server, has said that it is done. That proves nothing: ``state`` must be
  asked afterwards.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable
from typing import Protocol

from migpool.device import DeviceError
from migpool_plugins.vfio.migration import Flags, MigrationState


class BackendError(DeviceError):
    """A request that a device or its server refused, or that could not be carried out.

    Arguments:
        text: one line: what was asked, and what came back.
        errno: the error number that came back; 0 for none (a time limit, a server that went away).
    """

    def __init__(self, text: str, errno: int = 0) -> None:
        super().__init__(text)
        self.errno = errno


class NoAnswer(BackendError):
    """Nobody answers: the server went away, or has not answered in time. To ask it at once again is to wait again."""


class Backend(Protocol):
    """One device of one backend.

    Attributes:
        note: what a reader of the result should know ("kernel, group 12", "vfio-user"); may be empty.
        flags: what the device can do.
        write_size: bytes that one request to the device carries at the most; ``write`` cuts at it.
    """

    note: str
    flags: Flags
    write_size: int

    def state(self) -> MigrationState:
        """Ask the device for its state."""

    def set_state(self, target: MigrationState) -> None:
        """Bring the device to ``target``, over as many arcs as it takes.

        Raises:
            BackendError: refused; the device may have come half-way.
        """

    def data_size(self) -> int | None:
        """Estimate how many bytes of state a stop-copy would read; ``None`` if the device cannot say."""

    def precopy_info(self) -> tuple[int, int] | None:
        """Ask a device in PRE_COPY what it has to give before it stops.

        Returns:
            Bytes of initial data that are left (when they are loaded, the destination is ready for a short stop), and
            bytes of state that have changed since they were read; ``None`` if it cannot say.
        """

    def read(self, buffer: memoryview) -> int:
        """Read the next part of the state straight into ``buffer``; 0 at the end of what there is."""

    def write(self, data: memoryview) -> None:
        """Write a part of the state, of any length; returns when the device has taken all of it."""

    def reset(self) -> None:
        """Reset the device; the last resort from any state, ERROR included. The migration state may stay as it is."""

    def poll_fd(self) -> int | None:
        """A descriptor that a selector can really wait on before ``read``; ``None`` if there is no such thing."""

    def abort(self) -> None:
        """End any wait in another call at once, from any thread; later calls fail until ``renew``."""

    def renew(self, patience: float | None = None) -> None:
        """Take back an abort, so that the device can be recovered or used again.

        Arguments:
            patience: seconds that the first answer on a new connection may take; ``None``: as long as any.
        """

    def close(self) -> None:
        """Give back every descriptor; harmless when it has been done."""


class Interruption:
    """Ends every wait for a device, which errors call ``name``, from any thread, until that is taken back.

    Once a device is interrupted or closed, a poll with the event descriptor ends at once, and ``check`` raises.
    ``interrupt`` may run beside anything, ``close`` included: every descriptor that it touches is closed under the one
    lock, which is held for nothing that blocks. So no descriptor that has since become somebody else's is touched.

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
