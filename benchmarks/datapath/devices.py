"""The benchmark's devices: as little as a device can do, so that what is measured is the way between them.

At the source they are named for where their state comes from, at the destination for where it goes. Each notes when its
first read began or its last write ended, which is what a run is timed by.
"""

from __future__ import annotations

import os
import socket
import time
from time import monotonic_ns

from migpool.device import Device
from migpool.errors import DeviceError

__all__ = [
    "BenchmarkDevice",
    "Blocking",
    "FromMemfd",
    "FromNothing",
    "FromPipe",
    "FromSocket",
    "FromSplice",
    "ToMemfd",
    "ToNothing",
    "ToSplice",
]


class BenchmarkDevice(Device):
    """What all of them share.

    Arguments:
        number: tells them apart; the C program uses the same names.
        size: bytes of state.

    Attributes:
        first: CLOCK_MONOTONIC in nanoseconds when its first read began, 0 before.
        last: the same, when its last write ended.
    """

    iterable = True

    def __init__(self, number: int, size: int) -> None:
        self.idstr = f"bench{number}/vfio"
        self.size = size
        self.done = 0
        self.first = 0
        self.last = 0

    def save_config(self) -> bytes:
        """Nothing: all state has gone in chunks."""
        return b""

    def load_config(self, data: bytes) -> None:
        """All state must have come.

        Raises:
            DeviceError: it has not.
        """
        if data or self.done != self.size:
            raise DeviceError(f"{self.done} bytes of state have come, it has {self.size}")


class FromNothing(BenchmarkDevice):
    """The buffer counts as filled: only the sockets are measured."""

    def save_state(self, buffer: memoryview) -> int:
        """Take what is in the buffer for state."""
        self.first = self.first or monotonic_ns()
        length = min(len(buffer), self.size - self.done)
        self.done += length
        return length


class FromMemfd(BenchmarkDevice):
    """State in a memfd, by preadv(2).

    Arguments:
        fd: the memfd.
    """

    def __init__(self, number: int, size: int, fd: int) -> None:
        super().__init__(number, size)
        self.fd = fd

    def save_state(self, buffer: memoryview) -> int:
        """Read at the place where the last read ended."""
        self.first = self.first or monotonic_ns()
        got = os.preadv(self.fd, [buffer], self.done)
        self.done += got
        return got


class FromSplice(FromMemfd):
    """State in a memfd, whose pages are passed on without a copy."""

    def splice_fd(self) -> int:
        """The memfd itself; its file offset says how far it has been read."""
        self.first = self.first or monotonic_ns()
        return self.fd


class FromPipe(FromMemfd):
    """State that another process writes into a pipe."""

    def save_state(self, buffer: memoryview) -> int:
        """Read until the chunk is full, or the state has ended."""
        self.first = self.first or monotonic_ns()
        filled = os.readv(self.fd, [buffer])
        while filled < len(buffer):
            more = os.readv(self.fd, [buffer[filled:]])
            if not more:
                break
            filled += more
        return filled


class FromSocket(BenchmarkDevice):
    """State that another process writes into a UNIX socket.

    Arguments:
        fd: the socket's descriptor; it belongs to the device from now on.
    """

    def __init__(self, number: int, size: int, fd: int) -> None:
        super().__init__(number, size)
        self._socket = socket.socket(fileno=fd)

    def save_state(self, buffer: memoryview) -> int:
        """Receive a whole chunk, or what is left."""
        self.first = self.first or monotonic_ns()
        return self._socket.recv_into(buffer, len(buffer), socket.MSG_WAITALL)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


class Blocking(BenchmarkDevice):
    """A device that takes its time for every chunk, and does nothing meanwhile.

    Arguments:
        delay: seconds a read.
    """

    def __init__(self, number: int, size: int, delay: float) -> None:
        super().__init__(number, size)
        self._delay = delay

    def save_state(self, buffer: memoryview) -> int:
        """Wait, then take what is in the buffer for state."""
        self.first = self.first or monotonic_ns()
        length = min(len(buffer), self.size - self.done)
        if length:
            time.sleep(self._delay)
        self.done += length
        return length


class ToNothing(BenchmarkDevice):
    """State that is counted and let go."""

    def load_state(self, data: memoryview) -> None:
        """Count it."""
        self.done += len(data)
        self.last = monotonic_ns()


class ToSplice(BenchmarkDevice):
    """State that goes into a memfd, as pages of a pipe or by write(2).

    Arguments:
        fd: the memfd; its file offset says how far it has been written.
    """

    def __init__(self, number: int, size: int, fd: int) -> None:
        super().__init__(number, size)
        self.fd = fd

    def splice_fd(self) -> int:
        """The memfd itself."""
        return self.fd

    def load_state(self, data: memoryview) -> None:
        """Write what could not be moved."""
        written = os.write(self.fd, data)
        while written < len(data):
            written += os.write(self.fd, data[written:])

    def load_config(self, data: bytes) -> None:
        """All state must have come; the last of it just now."""
        self.last = monotonic_ns()
        self.done = os.lseek(self.fd, 0, os.SEEK_CUR)
        super().load_config(data)


class ToMemfd(BenchmarkDevice):
    """State that goes into a memfd, by pwrite(2).

    Arguments:
        fd: the memfd.
    """

    def __init__(self, number: int, size: int, fd: int) -> None:
        super().__init__(number, size)
        self.fd = fd

    def load_state(self, data: memoryview) -> None:
        """Write at the place where the last write ended."""
        written = os.pwrite(self.fd, data, self.done)
        while written < len(data):
            written += os.pwrite(self.fd, data[written:], self.done + written)
        self.done += written
        self.last = monotonic_ns()
