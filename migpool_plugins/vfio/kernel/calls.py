"""The calls into the kernel that the backend makes, in one place, so that a driver made for a test can stand in for it.

Whatever stands in returns real descriptors: waiting on them, and closing them, is not its business.
"""

from __future__ import annotations

import os
from typing import Protocol

from migpool_plugins.ioctl import ioctl

__all__ = ["Calls", "LinuxCalls"]


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
        return ioctl(fd, number, argument)

    def read(self, fd: int, buffer: memoryview) -> int:
        return os.readv(fd, [buffer])

    def write(self, fd: int, data: memoryview) -> int:
        return os.write(fd, data)
