"""What ``migpool vfio probe`` finds on a host, and why a device cannot migrate, in plain words."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest

from migpool_plugins.vfio.kernel.devices import ProbedDevice, probe
from migpool_plugins.vfio.migration import Flags, MigrationState
from tests.support.vfio.fake_driver import FakeDevice, FakeDriver
from tests.support.vfio.made_host import UUIDS, MadeHost

NAME = UUIDS[0]
FUNCTION = "0000:01:00.2"


@pytest.fixture
def made(tmp_path: Path) -> MadeHost:
    return MadeHost(tmp_path / "host")


def found(made: MadeHost, driver: FakeDriver | None = None) -> ProbedDevice:
    """The one device that a probe finds; nothing is left open."""
    driver = driver or FakeDriver(made.root, {NAME: FakeDevice(), FUNCTION: FakeDevice(group="9")})
    (finding,) = probe(made.host, driver)
    assert not driver.opened()
    assert finding.migrates is (not finding.reason)
    return finding


def test_an_empty_host(made: MadeHost) -> None:
    assert probe(made.host, FakeDriver(made.root, {})) == []


def test_a_device_that_can_migrate(made: MadeHost) -> None:
    made.vfio("7")
    made.mediated(NAME)
    flags = ("STOP_COPY", "P2P", "PRE_COPY")
    assert found(made) == ProbedDevice(NAME, "mtty", "7", migrates=True, flags=flags, state="RUNNING", reason="")


def test_a_mediated_device_of_a_kernel_before_6_1(made: MadeHost) -> None:
    made.vfio("7")
    made.mediated(NAME, character_device="")
    assert found(made).migrates


def test_a_device_in_the_midst_of_a_migration_stays_there(made: MadeHost) -> None:
    made.vfio("7")
    made.mediated(NAME)
    device = FakeDevice(flags=Flags.STOP_COPY, here=MigrationState.STOP_COPY)
    finding = found(made, FakeDriver(made.root, {NAME: device}))
    assert (finding.state, finding.flags) == ("STOP_COPY", ("STOP_COPY",))
    assert (device.here, device.resets) == (MigrationState.STOP_COPY, 0)


def test_no_vfio(made: MadeHost) -> None:
    made.mediated(NAME)
    assert (
        found(made).reason
        == f"{made.root}/dev/vfio does not exist: load the module vfio, then bind {NAME} to its driver"
    )


def test_another_driver(made: MadeHost) -> None:
    made.vfio()
    made.pci(FUNCTION, group="9", driver="mlx5_core", virtual=True)
    words = f"{FUNCTION} is bound to the driver mlx5_core: bind it to a VFIO driver that can migrate it"
    assert found(made).reason == words


def test_no_driver(made: MadeHost) -> None:
    made.vfio()
    made.pci(FUNCTION, group="9", virtual=True)
    assert found(made).reason.startswith(f"{FUNCTION} is bound to no driver: ")


def test_no_iommu_group(made: MadeHost) -> None:
    made.vfio()
    made.pci(FUNCTION, driver="mlx5_vfio_pci")
    assert found(made).reason.startswith(f"{FUNCTION} has no IOMMU group: turn the IOMMU on")


def test_a_group_that_is_not_viable(made: MadeHost) -> None:
    made.vfio("9")
    made.pci(FUNCTION, group="9", driver="mlx5_vfio_pci")
    made.pci("0000:01:00.0", group="9", driver="mlx5_core")
    reason = found(made).reason
    assert reason == "its group 9 is not viable: unbind 0000:01:00.0 (mlx5_core) from other drivers"


def test_no_permission(made: MadeHost) -> None:
    made.vfio("7")
    made.mediated(NAME)
    driver = FakeDriver(made.root, {NAME: FakeDevice()})
    driver.closed_to["vfio/7"] = errno.EACCES
    assert found(made, driver).reason.endswith("run this as root, or give your user the file")


def test_in_use(made: MadeHost) -> None:
    made.vfio("7")
    made.mediated(NAME)
    driver = FakeDriver(made.root, {NAME: FakeDevice()})
    driver.closed_to["vfio/7"] = errno.EBUSY
    assert found(made, driver).reason.endswith("another program has it: close that first")


def test_a_driver_without_migration(made: MadeHost) -> None:
    made.vfio("9")
    made.pci(FUNCTION, group="9", driver="vfio-pci")
    driver = FakeDriver(made.root, {FUNCTION: FakeDevice(group="9", failing={"migration": errno.ENOTTY})})
    assert found(made, driver).reason == "the driver vfio-pci has no migration of version 2: use one that has"


def test_a_device_without_stop_copy(made: MadeHost) -> None:
    made.vfio("7")
    made.mediated(NAME)
    driver = FakeDriver(made.root, {NAME: FakeDevice(flags=Flags.P2P)})
    assert found(made, driver).reason.startswith("it has no stop-copy")


def test_devices_that_nobody_means_are_left_out(made: MadeHost) -> None:
    made.vfio()
    made.pci("0000:00:1f.2", group="3", driver="ahci")
    made.pci("0000:00:02.0", driver="vfio-pci")
    made.mediated(NAME, group="")
    found = probe(made.host, FakeDriver(made.root, {}))
    assert [finding.name for finding in found] == [NAME, "0000:00:02.0"]


def test_the_command(tmp_path: Path) -> None:
    """On whatever host this is, and on none of its devices is anything changed."""
    for form in ([], ["--json"]):
        command = [sys.executable, "-m", "migpool", "vfio", "probe", *form]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)
        assert (ended.returncode, ended.stderr) == (0, "")
    document = json.loads(ended.stdout)
    assert document["schema"] == 1
    assert all(device.keys() == set(ProbedDevice.__dataclass_fields__) for device in document["devices"])
