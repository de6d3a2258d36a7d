"""A host's files, as sysfs and /dev would have them, in a directory of a test's own."""

from __future__ import annotations

from pathlib import Path

from migpool_plugins.vfio.kernel.host import Host

__all__ = ["UUIDS", "MadeHost"]

UUIDS = ("83b8f4f2-509f-382f-3c1e-e6bfe0fa1001", "83b8f4f2-509f-382f-3c1e-e6bfe0fa1002")


class MadeHost:
    """Makes devices, groups and files.

    Arguments:
        root: an empty directory.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.host = Host(root)
        (root / "dev").mkdir(parents=True)

    def vfio(self, *files: str) -> None:
        """Make the directory of VFIO's files, with some."""
        for name in ("vfio", *files):
            file = self.root / "dev" / "vfio" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()

    def iommufd(self) -> None:
        """Make the file of iommufd."""
        (self.root / "dev" / "iommu").touch()

    def mediated(self, name: str, group: str = "7", driver: str = "mtty", character_device: str = "vfio0") -> Path:
        """Make a mediated device; a driver's own directory says that it is VFIO's."""
        return self._device("mdev", name, group, driver, character_device)

    def pci(
        self, name: str, group: str = "", driver: str = "", character_device: str = "", *, virtual: bool = False
    ) -> Path:
        """Make a PCI device."""
        device = self._device("pci", name, group, driver, character_device)
        if virtual:
            self._link(device / "physfn", self.root / "sys/devices/pci0000:00/0000:00:01.0")
        return device

    def _device(self, bus: str, name: str, group: str, driver: str, character_device: str) -> Path:
        device = self.root / "sys/devices" / name
        device.mkdir(parents=True)
        seen = self.root / "sys/bus" / bus / "devices" / name
        self._link(seen, device)
        self._link(device / "subsystem", self.root / "sys/bus" / bus)
        if driver:
            self._link(device / "driver", self.root / "sys/bus" / bus / "drivers" / driver)
        if character_device:
            (device / "vfio-dev" / character_device).mkdir(parents=True)
        if group:
            members = self.root / "sys/kernel/iommu_groups" / group / "devices"
            self._link(members / name, device)
            self._link(device / "iommu_group", members.parent)
        return seen

    def _link(self, link: Path, target: Path) -> None:
        target.mkdir(parents=True, exist_ok=True)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target)
