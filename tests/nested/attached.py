"""QEMUs with devices of the sample driver attached, and the state of these devices before and after.

A device keeps its state when QEMU ends, and QEMU does not lead it out of the migration: so a device is reset before it
is asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from migpool_plugins.vfio.migration import MigrationState
from tests.kernel.mtty import Uart, make_devices, saved
from tests.qemu.qemu_guest import set_up
from tests.qemu.qemuprocess import Json, QemuProcess, WaitedTooLong, qemu_here

__all__ = [
    *(
        "EVERY_WAY",
        "LIMIT",
        "PAIRS",
        "PLACES",
        "Ends",
        "Way",
        "arrived",
        "attached",
        "ends",
        "fill",
        "migrate",
        "ready",
    ),
    *("state_of", "states_of"),
]

LIMIT: Final = 120.0
"""Seconds for one migration: a QEMU in an emulated machine on a busy host."""


@dataclass(frozen=True)
class Way:
    """How a QEMU is to migrate.

    Arguments:
        channels: multifd channels; 0 without multifd.
        transfer: whether the devices' state crosses over them (``x-migration-multifd-transfer``).
        devices: how many there are.
        acknowledged: with the capability switchover-ack.
        running: whether the machine runs at the source, so that its devices are pre-copied.
        behind: where the devices are, one of ``PLACES``.
    """

    channels: int = 2
    transfer: bool = True
    devices: int = 1
    acknowledged: bool = False
    running: bool = True
    behind: str = "root-bus"

    @property
    def capabilities(self) -> tuple[str, ...]:
        return ("return-path", *(["switchover-ack"] if self.acknowledged else []))

    def __str__(self) -> str:
        words = [f"{self.channels}-channels", "multifd" if self.transfer else "main-channel", f"{self.devices}-devices"]
        return "-".join([*words, *["acknowledged"] * self.acknowledged, *["stopped"] * (not self.running)])


PLACES: Final = {
    "root-bus": ("pcie.0", ()),
    "root-port": ("behind", ("pcie-root-port,id=behind,bus=pcie.0,chassis=1",)),
    "pxb": ("behind", ("pxb-pcie,id=beside,bus=pcie.0,bus_nr=64", "pcie-root-port,id=behind,bus=beside,chassis=1")),
}
"""Where a device can be: its bus, and what makes that."""
EVERY_WAY: Final = [
    Way(channels, transfer, devices, acknowledged, running)
    for channels in (2, 4)
    for transfer in (True, False)
    for devices in (1, 3)
    for acknowledged in (True, False)
    for running in (True, False)
]
PAIRS: Final = [
    way
    for way in EVERY_WAY
    if way.acknowledged == (way.transfer == (way.channels == 2)) and way.running == (way.transfer == (way.devices == 3))
]
"""Eight of them, in which every choice meets every other one."""


@dataclass(frozen=True)
class Ends:
    """Devices for both ends, by their UUIDs."""

    here: Sequence[str]
    there: Sequence[str]


@contextmanager
def ends(count: int) -> Iterator[Ends]:
    """Make as many devices for either end, those here with state in them."""
    with make_devices(2 * count) as names:
        fill(names[:count])
        yield Ends(names[:count], names[count:])


def fill(names: Sequence[str], text: str = "fifo") -> None:
    """Put another state into each device."""
    for number, name in enumerate(names):
        with Uart(name) as uart:
            uart.put(f"{text} {number} port 0".encode(), f"{text} {number} p1".encode())


def state_of(name: str) -> bytes:
    """The state of a device that nobody has open."""
    with Uart(name) as uart:
        if uart.backend.state() is not MigrationState.RUNNING:
            uart.backend.reset()
        return saved(uart, 1 << 20)


def states_of(names: Sequence[str]) -> list[bytes]:
    """The states of several devices."""
    return [state_of(name) for name in names]


@contextmanager
def attached(devices: Sequence[str], log: Path, way: Way, *more: str, incoming: str = "") -> Iterator[QemuProcess]:
    """A QEMU with devices on its root bus, behind each other.

    Arguments:
        devices: their UUIDs.
        log: for what it says on stderr.
        more: further arguments.
        incoming: what it waits for; empty for a source.
    """
    qemu = qemu_here()
    assert qemu is not None
    # A vCPU's state has a subsection from the first SMI on, which a machine that was captured before does not know.
    machine = f"{qemu.machine()},smm=off"
    arguments = [
        *(*qemu.command, "-accel", "tcg", "-machine", machine, "-m", "64", "-nodefaults", "-display", "none"),
        *(word for bridge in PLACES[way.behind][1] for word in ("-device", bridge)),
        *(word for number, name in enumerate(devices) for word in ("-device", device(name, number, way))),
        *(("-incoming", incoming) if incoming else ()),
        *(() if incoming or way.running else ("-S",)),
        *more,
    ]
    with QemuProcess(arguments, log) as process:
        yield process


def device(name: str, number: int, way: Way) -> str:
    options = {
        "sysfsdev": f"/sys/bus/mdev/devices/{name}",
        "enable-migration": "on",
        "x-migration-multifd-transfer": "on" if way.transfer else "off",
        # There is no iommufd, by which a kernel could say what devices have written.
        "x-device-dirty-page-tracking": "off",
        "id": f"mtty{number}",
        "bus": PLACES[way.behind][0],
    }
    return ",".join(["vfio-pci", *(f"{key}={value}" for key, value in options.items())])


def ready(qemu: QemuProcess, address: str, way: Way) -> None:
    """Let a QEMU wait for a migration."""
    set_up(qemu, channels=way.channels, capabilities=way.capabilities)
    qemu.execute("migrate-incoming", {"uri": address, "exit-on-error": False})


def migrate(qemu: QemuProcess, address: str, way: Way) -> None:
    """Migrate a machine; it must go well."""
    # Or a source on a busy host never finds that large devices fit into the downtime.
    patient: dict[str, Json] = {"downtime-limit": 60_000}
    set_up(qemu, channels=way.channels, capabilities=way.capabilities, parameters=patient)
    qemu.execute("migrate", {"uri": address})
    try:
        _completed(qemu)
    except WaitedTooLong:
        if "thread_pool_set_max_threads" not in qemu.stderr:
            raise
        # Whatever its peer does: docs/vfio.md, "In a QEMU".
        pytest.skip("QEMU aborted: one of its own threads had ended before it was counted")


def arrived(qemu: QemuProcess) -> None:
    """Wait for the end of a migration, which must have gone well, and have the machine run: only then do devices."""
    _completed(qemu)
    qemu.execute("cont")
    assert qemu.running()


def _completed(qemu: QemuProcess) -> None:
    assert qemu.wait_for_status("completed", "failed", limit=LIMIT) == "completed", qemu.reason()
