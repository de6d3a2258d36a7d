"""The calls into the kernel that the backend makes, in one place, and the error that a refused one becomes.

A driver made for a test can stand in for the kernel. Whatever stands in returns real descriptors: waiting on them, and
closing them, is not its business.
"""

from __future__ import annotations

import errno
import fcntl
import os
from typing import Protocol

from migpool_plugins.vfio.backend import BackendError

__all__ = ["Calls", "LinuxCalls", "refusal"]


class Calls(Protocol):
    """What a VFIO driver is asked. Everything raises ``OSError`` with the driver's number."""

    def open(self, path: str) -> int:
        """Open a file of /dev/vfio, or /dev/iommu, for reading and writing."""

    def ioctl(self, fd: int, number: int, argument: int | bytearray) -> int:
        """Make one ioctl; a ``bytearray`` is filled in place. Data descriptors come back in it, or as the result."""

    def read(self, fd: int, buffer: memoryview) -> int:
        """Read once from a data descriptor, straight into ``buffer``."""

    def write(self, fd: int, data: memoryview) -> int:
        """Write once to a data descriptor; returns how much was taken."""


class LinuxCalls:
    """The calls, as they are."""

    def open(self, path: str) -> int:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def ioctl(self, fd: int, number: int, argument: int | bytearray) -> int:
        return fcntl.ioctl(fd, number, argument)

    def read(self, fd: int, buffer: memoryview) -> int:
        return os.readv(fd, [buffer])

    def write(self, fd: int, data: memoryview) -> int:
        return os.write(fd, data)


def refusal(device: str, what: str, error: OSError, remedy: str) -> BackendError:
    """Return the error for a call that a driver refused.

    Arguments:
        device: the device's name.
        what: what it was asked ("to become STOP_COPY").
        error: what came back.
        remedy: what to do about it.
    """
    number = error.errno or 0
    name = errno.errorcode.get(number, str(number))
    return BackendError(f"{device} refused {what} with {name} ({os.strerror(number)}): {remedy}", number)
