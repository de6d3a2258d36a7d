"""Numbers and structures of the kernel's VFIO and iommufd interfaces, as in ``linux/vfio.h`` and ``linux/iommufd.h``.

Only what this backend calls stands here. Structures are ``struct`` formats in native order with every pad written out,
so that an ioctl needs one ``bytearray`` and no object per field. The tests compare every number, size and offset with
the kernel's headers, as far as those that are installed know them.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import Final

API_VERSION: Final = 0
TYPE1V2_IOMMU: Final = 3
"""How a container maps memory: an x86 or Arm IOMMU has it, a mediated device too."""

_VFIO_TYPE: Final = ord(";")
_VFIO_BASE: Final = 100
_IOMMUFD_TYPE: Final = ord(";")


@dataclass(frozen=True, slots=True)
class Request:
    """One ioctl: its name in the kernel's headers, and its number."""

    name: str
    number: int


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
