"""The calls into the kernel that the backend makes, in one place: the requests about migration that go through
VFIO_DEVICE_FEATURE, and the error that a refused call becomes.

A driver made for a test can stand in for the kernel. It returns real descriptors, on which the backend itself waits,
and which it closes.
"""

from __future__ import annotations

import errno
import os
from struct import Struct
from typing import Protocol

from migpool_plugins.ioctl import ioctl
from migpool_plugins.vfio.backend import BackendError
from migpool_plugins.vfio.kernel import abi
from migpool_plugins.vfio.migration import (
    FEATURE_HEADER,
    MIG_DATA_SIZE,
    MIG_STATE,
    MIGRATION,
    Feature,
    FeatureFlag,
    Flags,
    MigrationState,
)


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


def get_flags(calls: Calls, fd: int) -> Flags:
    """What a device can do; ENOTTY if its driver has no migration of version 2."""
    argument = _feature(calls, fd, FeatureFlag.GET | Feature.MIGRATION, MIGRATION)
    (flags,) = MIGRATION.unpack_from(argument, FEATURE_HEADER.size)
    return Flags(flags)


def get_state(calls: Calls, fd: int) -> MigrationState:
    """Where a device is."""
    argument = _feature(calls, fd, FeatureFlag.GET | Feature.MIG_DEVICE_STATE, MIG_STATE)
    state, _descriptor = MIG_STATE.unpack_from(argument, FEATURE_HEADER.size)
    return MigrationState(state)


def set_state(calls: Calls, fd: int, target: int) -> int:
    """Bring a device to a state, over all arcs between; returns the new data descriptor, -1 if there is no new one."""
    flags = FeatureFlag.SET | Feature.MIG_DEVICE_STATE
    argument = _feature(calls, fd, flags, MIG_STATE, MIG_STATE.pack(target, -1))
    _state, descriptor = MIG_STATE.unpack_from(argument, FEATURE_HEADER.size)
    return int(descriptor)


def get_data_size(calls: Calls, fd: int) -> int:
    """How many bytes a stop-copy would read, by the driver's estimate; ENOTTY if it makes none."""
    argument = _feature(calls, fd, FeatureFlag.GET | Feature.MIG_DATA_SIZE, MIG_DATA_SIZE)
    (size,) = MIG_DATA_SIZE.unpack_from(argument, FEATURE_HEADER.size)
    return int(size)


def _feature(calls: Calls, fd: int, flags: int, layout: Struct, content: bytes = b"") -> bytearray:
    """Make the request; returns its structure as the driver left it."""
    size = FEATURE_HEADER.size + layout.size
    argument = bytearray(FEATURE_HEADER.pack(size, flags) + (content or bytes(layout.size)))
    calls.ioctl(fd, abi.DEVICE_FEATURE.number, argument)
    return argument
