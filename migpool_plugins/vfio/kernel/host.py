"""What sysfs says of the devices of this host: driver, IOMMU group, character device. Nothing here opens a device."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from migpool.device import DeviceError

_PCI: Final = re.compile(r"(?:[0-9a-f]{4,8}:)?[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]", re.IGNORECASE)
_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class HostDevice:
    """One device of the host.

    Arguments:
        name: what its driver and the kernel call it: a PCI address, or a mediated device's UUID.
        path: its directory in sysfs.
        driver: the driver it is bound to; empty without one.
        group: its IOMMU group, a number; empty without one.
        strangers: names and drivers of the devices of its group that another driver than VFIO's holds: while there are
            any, the group is not viable, and nobody may open a device of it.
        vfio: whether its driver is one that gives it to user space.
        character_device: the name of its own file below /dev/vfio/devices ("vfio0"); empty without one.
        virtual_function: whether it is a virtual function of another device.
    """

    name: str
    path: Path
    driver: str
    group: str
    strangers: tuple[tuple[str, str], ...]
    vfio: bool
    character_device: str
    virtual_function: bool


@dataclass(frozen=True, slots=True)
class Host:
    """Where the host's files are: the directory that has ``sys`` and ``dev``."""

    root: Path = field(default_factory=lambda: Path("/"))

    @property
    def vfio(self) -> Path:
        return self.root / "dev" / "vfio"

    @property
    def iommufd(self) -> Path:
        return self.root / "dev" / "iommu"

    def group_file(self, device: HostDevice) -> Path:
        return self.vfio / device.group

    def device_file(self, device: HostDevice) -> Path:
        return self.vfio / "devices" / device.character_device

    def find(self, text: str) -> HostDevice:
        """Return the device that somebody means.

        Arguments:
            text: its directory in sysfs, a PCI address with or without its domain, or a mediated device's UUID.

        Raises:
            DeviceError: there is none; one line says what was looked for.
        """
        buses = self.root / "sys" / "bus"
        if text.startswith("/"):
            path = self.root / text.removeprefix("/")
        elif _PCI.fullmatch(text):
            path = buses / "pci" / "devices" / (text if text.count(":") == 2 else f"0000:{text}").lower()
        elif _UUID.fullmatch(text):
            path = buses / "mdev" / "devices" / text.lower()
        else:
            raise DeviceError(
                f"{text!r} names no device: use a PCI address (0000:01:00.0), the UUID of a mediated device, "
                f"or a directory of /sys"
            )
        if not path.is_dir():
            raise DeviceError(f"there is no device {text}: {path} does not exist")
        return self.describe(path)

    def describe(self, path: Path) -> HostDevice:
        """Return what sysfs says of the device of a directory."""
        group = path / "iommu_group"
        own = sorted(entry.name for entry in (path / "vfio-dev").glob("vfio*"))
        return HostDevice(
            name=path.resolve().name,
            path=path,
            driver=_link(path / "driver"),
            group=_link(group),
            strangers=tuple(
                (member.name, _link(member / "driver"))
                for member in sorted((group / "devices").glob("*"))
                if not _may_share(member)
            ),
            vfio=_is_vfio(path),
            character_device=next((name for name in own if (self.vfio / "devices" / name).exists()), ""),
            virtual_function=(path / "physfn").exists(),
        )

    def devices(self) -> list[HostDevice]:
        """Return those that could be meant to migrate: mediated devices, devices bound to VFIO, virtual functions."""
        buses = self.root / "sys" / "bus"
        found = [self.describe(path) for bus in ("mdev", "pci") for path in sorted((buses / bus / "devices").glob("*"))]
        return [device for device in found if device.vfio or device.virtual_function or _is_mediated(device.path)]


def _link(path: Path) -> str:
    """The last part of what a link of sysfs leads to; empty if there is none."""
    try:
        return path.readlink().name
    except OSError:
        return ""


def _is_mediated(path: Path) -> bool:
    return _link(path / "subsystem") == "mdev"


def _is_vfio(path: Path) -> bool:
    """Whether a device's driver gives it to user space.

    Kernels before 6.1 do not say so by a directory; there, every driver of a mediated device does, and any other that
    has VFIO in its name.
    """
    driver = _link(path / "driver")
    return (path / "vfio-dev").is_dir() or "vfio" in driver or (bool(driver) and _is_mediated(path))


def _may_share(member: Path) -> bool:
    """Whether a device may be in the group of one that user space has: VFIO, nobody, or a harmless driver has it."""
    return _link(member / "driver") in ("", "pci-stub", "pcieport") or _is_vfio(member)
