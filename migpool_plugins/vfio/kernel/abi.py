"""The kernel's VFIO and iommufd interfaces: numbers, structures, the calls, and the error that a refused call becomes.

Numbers and structures are those of ``linux/vfio.h`` and ``linux/iommufd.h``; only what this backend calls stands here.
Structures are ``struct`` formats in native order with every pad written out, so that an ioctl needs one ``bytearray``
and no object per field. The tests compare every number, size and offset with the kernel's headers, as far as those that
are installed know them.
"""

from __future__ import annotations

import errno
import os
from struct import Struct
from typing import Final

from migpool_plugins.ioctl import Request, ioctl
from migpool_plugins.vfio.backend import BackendError
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

API_VERSION: Final = 0
TYPE1V2_IOMMU: Final = 3
"""How a container maps memory: an x86 or Arm IOMMU has it, a mediated device too."""

_VFIO_TYPE: Final = ord(";")
_VFIO_BASE: Final = 100
_IOMMUFD_TYPE: Final = ord(";")


def _vfio(name: str, number: int) -> Request:
    return Request(name, _VFIO_TYPE << 8 | _VFIO_BASE + number)


# A container and a group ----------------------------------------------------------------------------------------------

GET_API_VERSION: Final = _vfio("VFIO_GET_API_VERSION", 0)
CHECK_EXTENSION: Final = _vfio("VFIO_CHECK_EXTENSION", 1)
SET_IOMMU: Final = _vfio("VFIO_SET_IOMMU", 2)
GROUP_GET_STATUS: Final = _vfio("VFIO_GROUP_GET_STATUS", 3)
GROUP_SET_CONTAINER: Final = _vfio("VFIO_GROUP_SET_CONTAINER", 4)
GROUP_GET_DEVICE_FD: Final = _vfio("VFIO_GROUP_GET_DEVICE_FD", 6)

GROUP_STATUS: Final = Struct("=II")
"""``struct vfio_group_status``: argsz, flags."""
GROUP_FLAGS_VIABLE: Final = 1
DESCRIPTOR: Final = Struct("=i")
"""What GROUP_SET_CONTAINER points to."""

# A device -------------------------------------------------------------------------------------------------------------

DEVICE_RESET: Final = _vfio("VFIO_DEVICE_RESET", 11)
DEVICE_FEATURE: Final = _vfio("VFIO_DEVICE_FEATURE", 17)
DEVICE_BIND_IOMMUFD: Final = _vfio("VFIO_DEVICE_BIND_IOMMUFD", 18)
DEVICE_ATTACH_IOMMUFD_PT: Final = _vfio("VFIO_DEVICE_ATTACH_IOMMUFD_PT", 19)

BIND_IOMMUFD: Final = Struct("=IIiI")
"""``struct vfio_device_bind_iommufd``: argsz, flags, iommufd, the device's id that comes back."""
ATTACH_IOMMUFD_PT: Final = Struct("=III")
"""``struct vfio_device_attach_iommufd_pt``, as first published: argsz, flags, id of an address space."""

# A data descriptor ----------------------------------------------------------------------------------------------------

MIG_GET_PRECOPY_INFO: Final = _vfio("VFIO_MIG_GET_PRECOPY_INFO", 21)
PRECOPY_INFO: Final = Struct("=IIQQ")
"""``struct vfio_precopy_info``: argsz, flags, bytes of initial data, dirty bytes."""

# An address space of iommufd ------------------------------------------------------------------------------------------

IOMMU_IOAS_ALLOC: Final = Request("IOMMU_IOAS_ALLOC", _IOMMUFD_TYPE << 8 | 0x81)
IOAS_ALLOC: Final = Struct("=III")
"""``struct iommu_ioas_alloc``: size, flags, the id that comes back."""


class Calls:
    """What a VFIO driver is asked. Everything raises ``OSError`` with the driver's number.

    A driver made for a test can stand in for the kernel. It returns real descriptors, on which the backend itself
    waits, and which it closes.
    """

    def open(self, path: str) -> int:
        """Open a file of /dev/vfio, or /dev/iommu, for reading and writing."""
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def ioctl(self, fd: int, number: int, argument: int | bytearray) -> int:
        """Make one ioctl; a ``bytearray`` is filled in place. Data descriptors come back in it, or as the result."""
        return ioctl(fd, number, argument)

    def read(self, fd: int, buffer: memoryview) -> int:
        """Read once from a data descriptor, straight into ``buffer``."""
        return os.readv(fd, [buffer])

    def write(self, fd: int, data: memoryview) -> int:
        """Write once to a data descriptor; returns how much was taken."""
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
    calls.ioctl(fd, DEVICE_FEATURE.number, argument)
    return argument
