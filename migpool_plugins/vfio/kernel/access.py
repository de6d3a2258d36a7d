"""The two ways to a device's descriptor: through its group and a container, or its own file and iommufd.

The group is the older way; a kernel may be built without it. One without iommufd, as Debian's 6.12, has nothing else.
Neither maps memory of a machine: the state of a device moves without its DMA.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from migpool_plugins.ioctl import Request
from migpool_plugins.vfio.backend import BackendError
from migpool_plugins.vfio.kernel import abi
from migpool_plugins.vfio.kernel.abi import Calls, refusal
from migpool_plugins.vfio.kernel.host import Host, HostDevice

Way: TypeAlias = Literal["group", "iommufd"]

_DEVICE_NAME_END: Final = b"\0"


@dataclass(slots=True)
class DeviceAccess:
    """An open device.

    Arguments:
        device: which.
        fd: its descriptor.
        note: the way it was reached, for a reader.
    """

    device: HostDevice
    fd: int
    note: str
    _closing: ExitStack

    def close(self) -> None:
        """Close the device, and what it was reached through when nobody else uses that; harmless a second time."""
        self._closing.close()


class _Group:
    """A group with a container of its own; closed by the last of its users."""

    def __init__(self, host: Host, device: HostDevice, calls: Calls) -> None:
        self._users = 0
        self.name = device.group
        with ExitStack() as opened:
            self.fd = _open(calls, str(host.group_file(device)), device, opened)
            _check_viable(calls, self.fd, device)
            container = _open(calls, str(host.vfio / "vfio"), device, opened)
            _check_container(calls, container, device)
            _ask(calls, self.fd, abi.GROUP_SET_CONTAINER, bytearray(abi.DESCRIPTOR.pack(container)), device)
            _ask(calls, container, abi.SET_IOMMU, abi.TYPE1V2_IOMMU, device)
            self._closing = opened.pop_all()

    def enter(self) -> None:
        self._users += 1

    def leave(self) -> None:
        self._users -= 1
        if not self._users:
            self._closing.close()


def way_to(host: Host, device: HostDevice, wanted: Way | None = None) -> Way:
    """Which way leads to a device here: the one that is wanted, or the group's if there is one, otherwise iommufd's.

    Raises:
        BackendError: none; the line says what is missing.
    """
    if not host.vfio.is_dir():
        raise BackendError(f"{host.vfio} does not exist: load the module vfio, then bind {device.name} to its driver")
    if not device.vfio:
        held = f"bound to the driver {device.driver}" if device.driver else "bound to no driver"
        raise BackendError(f"{device.name} is {held}: bind it to a VFIO driver that can migrate it")
    has_group = bool(device.group) and host.group_file(device).exists()
    if wanted != "iommufd" and has_group:
        return "group"
    if wanted != "group" and device.character_device and host.iommufd.exists():
        return "iommufd"
    raise BackendError(_what_is_missing(host, device, wanted))


def _what_is_missing(host: Host, device: HostDevice, wanted: Way | None) -> str:
    if not device.group and wanted == "group" and device.character_device:
        return f"{device.name} has no group, this kernel gives it a file of its own: use iommufd"
    if not device.group and wanted != "iommufd":
        return f"{device.name} has no IOMMU group: turn the IOMMU on in the firmware and on the kernel's command line"
    if wanted == "iommufd" and not device.character_device:
        return f"{device.name} has no file of its own below {host.vfio}/devices: use its group"
    if wanted == "iommufd" or (device.character_device and wanted is None):
        return f"{device.name} has a file of its own, but {host.iommufd} is missing: load the module iommufd"
    return f"{device.name}: {host.group_file(device)} is missing: load the module vfio, or use iommufd"


def open_access(devices: Sequence[HostDevice], host: Host, calls: Calls, way: Way | None = None) -> list[DeviceAccess]:
    """Open devices; those of one group share it, since a group can be opened once only.

    Raises:
        BackendError: a device could not be opened; none is left open.
    """
    groups: dict[str, _Group] = {}
    with ExitStack() as opened:
        made: list[DeviceAccess] = []
        for device in devices:
            if way_to(host, device, way) == "iommufd":
                access = _open_with_iommufd(device, host, calls)
            else:
                access = _open_in_group(device, host, calls, groups)
            opened.callback(access.close)
            made.append(access)
        opened.pop_all()
    return made


def _open_in_group(device: HostDevice, host: Host, calls: Calls, groups: dict[str, _Group]) -> DeviceAccess:
    with ExitStack() as opened:
        group = groups.get(device.group)
        if group is None:
            group = groups[device.group] = _Group(host, device, calls)
        group.enter()
        opened.callback(group.leave)
        name = bytearray(device.name.encode() + _DEVICE_NAME_END)
        fd = _ask(calls, group.fd, abi.GROUP_GET_DEVICE_FD, name, device)
        opened.callback(os.close, fd)
        return DeviceAccess(device, fd, f"kernel driver {device.driver}, group {device.group}", opened.pop_all())


def _open_with_iommufd(device: HostDevice, host: Host, calls: Calls) -> DeviceAccess:
    with ExitStack() as opened:
        # An address space of the device's own, without a mapping: until it is attached, the kernel blocks the device.
        iommufd = _open(calls, str(host.iommufd), device, opened)
        fd = _open(calls, str(host.device_file(device)), device, opened)
        bind = bytearray(abi.BIND_IOMMUFD.pack(abi.BIND_IOMMUFD.size, 0, iommufd, 0))
        _ask(calls, fd, abi.DEVICE_BIND_IOMMUFD, bind, device)
        space = bytearray(abi.IOAS_ALLOC.pack(abi.IOAS_ALLOC.size, 0, 0))
        _ask(calls, iommufd, abi.IOMMU_IOAS_ALLOC, space, device)
        _size, _flags, number = abi.IOAS_ALLOC.unpack(space)
        attach = bytearray(abi.ATTACH_IOMMUFD_PT.pack(abi.ATTACH_IOMMUFD_PT.size, 0, number))
        _ask(calls, fd, abi.DEVICE_ATTACH_IOMMUFD_PT, attach, device)
        note = f"kernel driver {device.driver}, iommufd, {device.character_device}"
        return DeviceAccess(device, fd, note, opened.pop_all())


def _open(calls: Calls, path: str, device: HostDevice, opened: ExitStack) -> int:
    try:
        fd = calls.open(path)
    except OSError as error:
        remedies = {
            errno.EBUSY: "another program has it: close that first",
            errno.EACCES: "run this as root, or give your user the file",
            errno.EPERM: "run this as root, or give your user the file",
            errno.ENOENT: "load the module vfio and bind the device to its VFIO driver",
        }
        remedy = remedies.get(error.errno or 0, "see the kernel's log")
        raise refusal(device.name, f"to be opened through {path}", error, remedy) from None
    opened.callback(os.close, fd)
    return fd


def _ask(calls: Calls, fd: int, request: Request, argument: int | bytearray, device: HostDevice) -> int:
    try:
        return calls.ioctl(fd, request.number, argument)
    except OSError as error:
        # A device that is open through its own file cannot be bound once more.
        busy = error.errno == (errno.EINVAL if request is abi.DEVICE_BIND_IOMMUFD else errno.EBUSY)
        remedy = "another program has it: close that first" if busy else "see the kernel's log"
        raise refusal(device.name, request.name, error, remedy) from None


def _check_viable(calls: Calls, group: int, device: HostDevice) -> None:
    status = bytearray(abi.GROUP_STATUS.pack(abi.GROUP_STATUS.size, 0))
    _ask(calls, group, abi.GROUP_GET_STATUS, status, device)
    _size, flags = abi.GROUP_STATUS.unpack(status)
    if not flags & abi.GROUP_FLAGS_VIABLE:
        others = ", ".join(f"{name} ({driver})" for name, driver in device.strangers) or "another device"
        raise BackendError(
            f"{device.name}: its group {device.group} is not viable while other drivers hold {others}: unbind them, "
            f"or bind them to VFIO"
        )


def _check_container(calls: Calls, container: int, device: HostDevice) -> None:
    version = _ask(calls, container, abi.GET_API_VERSION, 0, device)
    if version != abi.API_VERSION:
        raise BackendError(f"this kernel's VFIO has version {version}, migpool knows {abi.API_VERSION}: update migpool")
    if not _ask(calls, container, abi.CHECK_EXTENSION, abi.TYPE1V2_IOMMU, device):
        raise BackendError(f"{device.name}: VFIO has no IOMMU of type 1 version 2: load the module vfio_iommu_type1")
