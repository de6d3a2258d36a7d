"""How a device of the host is found and opened, by its group or by iommufd, and what is said when it cannot be."""

from __future__ import annotations

import errno
import struct
from pathlib import Path

import pytest

from migpool.device import DeviceError
from migpool_plugins.vfio.kernel import open_kernel
from migpool_plugins.vfio.kernel.backend import KernelBackend
from tests.support.vfio.fake_driver import FakeDevice, FakeDriver
from tests.support.vfio.made_host import UUIDS, MadeHost

NAME, OTHER = UUIDS


@pytest.fixture
def made(tmp_path: Path) -> MadeHost:
    """A host with two mediated devices in groups of their own."""
    made = MadeHost(tmp_path / "host")
    made.vfio("7", "8")
    made.mediated(NAME)
    made.mediated(OTHER, group="8", character_device="vfio1")
    return made


@pytest.fixture
def driver(made: MadeHost) -> FakeDriver:
    return FakeDriver(made.root, {NAME: FakeDevice(), OTHER: FakeDevice(group="8")})


def opened(made: MadeHost, driver: FakeDriver, *names: str) -> list[KernelBackend]:
    return open_kernel(names or (NAME,), host=made.host, calls=driver)


def refused(made: MadeHost, driver: FakeDriver, *names: str) -> str:
    """What is said of devices that cannot be opened; nothing is left open."""
    with pytest.raises(DeviceError) as caught:
        opened(made, driver, *names)
    assert not driver.opened()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_through_the_group(made: MadeHost, driver: FakeDriver) -> None:
    (backend,) = opened(made, driver)
    asked = ["vfio/7", "3b67", "vfio/vfio", "3b64", "3b65", "3b68", "3b66", "3b6a"]
    assert driver.said[: len(asked)] == asked
    assert driver.opened() == {"vfio/7": 1, "vfio/vfio": 1, NAME: 1}
    backend.close()
    assert not driver.opened()


@pytest.mark.parametrize("text", [NAME, NAME.upper(), f"/sys/bus/mdev/devices/{NAME}", f"/sys/devices/{NAME}"])
def test_a_device_has_several_names(made: MadeHost, driver: FakeDriver, text: str) -> None:
    (backend,) = opened(made, driver, text)
    assert backend.name == NAME
    backend.close()


@pytest.mark.parametrize("text", ["0000:01:00.3", "01:00.3"])
def test_a_pci_device_needs_no_domain(made: MadeHost, driver: FakeDriver, text: str) -> None:
    made.pci("0000:01:00.3", group="7", driver="mlx5_vfio_pci")
    driver.devices["0000:01:00.3"] = FakeDevice()
    (backend,) = opened(made, driver, text)
    assert backend.note == "kernel driver mlx5_vfio_pci, group 7"
    backend.close()


def test_devices_of_one_group_share_it_until_the_last_is_closed(made: MadeHost, driver: FakeDriver) -> None:
    made.pci("0000:01:00.3", group="7", driver="mlx5_vfio_pci")
    driver.devices["0000:01:00.3"] = FakeDevice()
    one, two, alone = opened(made, driver, NAME, "0000:01:00.3", OTHER)
    assert driver.opened() == {"vfio/7": 1, "vfio/8": 1, "vfio/vfio": 2, NAME: 1, OTHER: 1, "0000:01:00.3": 1}
    one.close()
    assert driver.opened()["vfio/7"] == 1
    two.close()
    assert driver.opened() == {"vfio/8": 1, "vfio/vfio": 1, OTHER: 1}
    alone.close()


def test_when_one_cannot_be_opened_none_is(made: MadeHost, driver: FakeDriver) -> None:
    driver.closed_to["vfio/8"] = errno.EBUSY
    assert f"{OTHER} refused to be opened through " in refused(made, driver, NAME, OTHER)
    del driver.closed_to["vfio/8"]
    driver.devices[OTHER].failing["migration"] = errno.ENOTTY
    assert "has no migration of version 2" in refused(made, driver, NAME, OTHER)


@pytest.mark.parametrize(
    ("file", "number", "words"),
    [
        ("vfio/7", errno.EBUSY, "with EBUSY (Device or resource busy): another program has it"),
        ("vfio/7", errno.EACCES, "with EACCES (Permission denied): run this as root, or give your user the file"),
        ("vfio/vfio", errno.EPERM, "run this as root, or give your user the file"),
        ("vfio/vfio", errno.ENOENT, "load the module vfio"),
        ("vfio/7", errno.EIO, "see the kernel's log"),
    ],
)
def test_a_file_that_cannot_be_opened(made: MadeHost, driver: FakeDriver, file: str, number: int, words: str) -> None:
    driver.closed_to[file] = number
    assert words in refused(made, driver)


@pytest.mark.parametrize(
    ("request_number", "name"), [(0x3B68, "VFIO_GROUP_SET_CONTAINER"), (0x3B6A, "VFIO_GROUP_GET_DEVICE_FD")]
)
def test_a_request_that_fails_is_named(made: MadeHost, driver: FakeDriver, request_number: int, name: str) -> None:
    driver.failing[request_number] = errno.EINVAL
    assert refused(made, driver) == f"{NAME} refused {name} with EINVAL (Invalid argument): see the kernel's log"


def test_a_group_that_is_not_viable(made: MadeHost, driver: FakeDriver) -> None:
    made.pci("0000:02:00.0", group="7", driver="e1000e")
    made.pci("0000:02:00.1", group="7", driver="pcieport")
    made.pci("0000:02:00.2", group="7")
    driver.viable = False
    assert "its group 7 is not viable while other drivers hold 0000:02:00.0 (e1000e):" in refused(made, driver)


def test_another_version_of_vfio(made: MadeHost, driver: FakeDriver) -> None:
    driver.version = 1
    assert "VFIO has version 1, migpool knows 0" in refused(made, driver)


def test_no_iommu_of_the_right_type(made: MadeHost, driver: FakeDriver) -> None:
    driver.extensions = {1}
    assert "load the module vfio_iommu_type1" in refused(made, driver)


# ---- iommufd


def with_iommufd(made: MadeHost, driver: FakeDriver) -> None:
    made.vfio("devices/vfio0")
    made.iommufd()
    driver.devices[NAME].character_device = "vfio0"


def test_through_iommufd_when_there_is_no_group(made: MadeHost, driver: FakeDriver) -> None:
    with_iommufd(made, driver)
    (made.root / "dev/vfio/7").unlink()
    (backend,) = opened(made, driver)
    assert driver.said[:5] == ["iommu", "vfio/devices/vfio0", "3b76", "3b81", "3b77"]
    assert backend.note == "kernel driver mtty, iommufd, vfio0"
    (_, bound), (_, attached) = driver.attached
    size, flags, iommufd, identity = struct.unpack("IIiI", bound)
    assert (size, flags, identity) == (16, 0, 0)
    assert iommufd >= 0
    assert struct.unpack("III", attached) == (12, 0, 42)
    backend.close()
    assert not driver.opened()


def test_iommufd_can_be_asked_for(made: MadeHost, driver: FakeDriver) -> None:
    with_iommufd(made, driver)
    (backend,) = open_kernel([NAME], way="iommufd", host=made.host, calls=driver)
    assert backend.note.endswith("iommufd, vfio0")
    backend.close()


def test_iommufd_asked_for_where_it_is_not(made: MadeHost, driver: FakeDriver) -> None:
    with pytest.raises(DeviceError, match=f"{NAME} has no file of its own below .*/dev/vfio/devices: "):
        open_kernel([NAME], way="iommufd", host=made.host, calls=driver)
    made.vfio("devices/vfio0")
    with pytest.raises(DeviceError, match=r"/dev/iommu is missing: load the module iommufd"):
        open_kernel([NAME], way="iommufd", host=made.host, calls=driver)


def test_the_group_asked_for_where_it_is_not(made: MadeHost, driver: FakeDriver) -> None:
    with_iommufd(made, driver)
    (made.root / "dev/vfio/7").unlink()
    with pytest.raises(DeviceError, match=r"/dev/vfio/7 is missing: load the module vfio, or use iommufd"):
        open_kernel([NAME], way="group", host=made.host, calls=driver)


def test_the_group_asked_for_on_a_kernel_without_groups(made: MadeHost, driver: FakeDriver) -> None:
    with_iommufd(made, driver)
    (made.root / f"sys/bus/mdev/devices/{NAME}/iommu_group").unlink()
    with pytest.raises(DeviceError, match=f"^{NAME} has no group, .*: use iommufd$"):
        open_kernel([NAME], way="group", host=made.host, calls=driver)


def test_a_device_whose_file_another_program_has(made: MadeHost, driver: FakeDriver) -> None:
    """The kernel does not bind what is open, and says EINVAL."""
    with_iommufd(made, driver)
    driver.failing[0x3B76] = errno.EINVAL
    with pytest.raises(DeviceError, match=r"refused VFIO_DEVICE_BIND_IOMMUFD with EINVAL .*: another program has it"):
        open_kernel([NAME], way="iommufd", host=made.host, calls=driver)


# ---- devices that are not there


@pytest.mark.parametrize("text", ["", "eth0", "0000:01:00.9", "83b8f4f2"])
def test_what_names_no_device(made: MadeHost, driver: FakeDriver, text: str) -> None:
    assert refused(made, driver, text).startswith(f"{text!r} names no device: use a PCI address")


@pytest.mark.parametrize("text", ["0000:03:00.0", "/sys/devices/none", "83b8f4f2-509f-382f-3c1e-e6bfe0fa1009"])
def test_a_device_that_is_not_there(made: MadeHost, driver: FakeDriver, text: str) -> None:
    assert refused(made, driver, text).startswith(f"there is no device {text}: ")


def test_a_device_that_is_named_twice(made: MadeHost, driver: FakeDriver) -> None:
    assert refused(made, driver, NAME, f"/sys/bus/mdev/devices/{NAME}") == f"{NAME} is named twice: give each once"
