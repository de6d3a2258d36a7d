"""Devices of the kernel's sample driver mtty: made and removed by sysfs, and with state put into their serial ports.

A device has two serial ports of eight registers each. What is written to a port's data register waits in it to be read:
that, and its registers, are the state that moves. A port's registers are a region of the device.
"""

from __future__ import annotations

import ctypes
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

from migpool_plugins.vfio.kernel import open_kernel
from migpool_plugins.vfio.kernel.access import Way
from migpool_plugins.vfio.migration import MigrationState

__all__ = [
    "HEADER_SIZE",
    "PARENT",
    "REACHED",
    "STATE_SIZE",
    "WAYS",
    "Uart",
    "bring",
    "make_devices",
    "other_driver",
    "read_all",
    "saved",
]

PARENT: Final = Path("/sys/devices/virtual/mtty/mtty")
TWO_PORTS: Final = "mtty-2"
WAYS: Final[tuple[Way, Way]] = ("iommufd", "group") if Path("/dev/iommu").exists() else ("group", "iommufd")
"""The one way to a device here, and the other one, which is not: neither guest's kernel has both."""
REACHED: Final = "kernel driver mtty, " + {"group": "group ", "iommufd": "iommufd, vfio"}[WAYS[0]]
STATE_SIZE: Final = 96
"""Bytes of the state of a device with two ports."""
HEADER_SIZE: Final = 24

_DATA, _FIFO_CONTROL, _SCRATCH = 0, 2, 7
_REGION_SHIFT: Final = 40
_DELETE_MODULE, _FINIT_MODULE = 176, 313
"""System calls of an amd64 machine."""
_FIFO_ON: Final = 1


@contextmanager
def other_driver(file: str, parameters: str) -> Iterator[None]:
    """Have another build of the driver in place of the usual one, which no device may use.

    Arguments:
        file: one of the guest's modules.
        parameters: of the module, as the kernel reads them.
    """
    libc = ctypes.CDLL(None, use_errno=True)

    def exchange(name: str, with_parameters: str = "") -> None:
        with Path(f"/modules/{name}.ko").open("rb") as module:
            gone = libc.syscall(_DELETE_MODULE, b"mtty", 0)
            if gone < 0 or libc.syscall(_FINIT_MODULE, module.fileno(), with_parameters.encode(), 0) < 0:
                raise OSError(ctypes.get_errno(), f"the driver cannot be exchanged for {name}")

    exchange(file, parameters)
    try:
        yield
    finally:
        exchange("mtty")


@contextmanager
def make_devices(count: int, kind: str = TWO_PORTS) -> Iterator[Sequence[str]]:
    """Make devices, and remove them at the end."""
    names = [str(uuid.uuid4()) for _ in range(count)]
    made: list[str] = []
    try:
        for name in names:
            (PARENT / "mdev_supported_types" / kind / "create").write_text(name)
            made.append(name)
        yield names
    finally:
        for name in made:
            (PARENT / name / "remove").write_text("1")


class Uart:
    """An open device.

    Arguments:
        name: its UUID.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        (self.backend,) = open_kernel([name])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.backend.close()

    def put(self, *texts: bytes) -> None:
        """Put up to 15 bytes into each port (a full one reads as empty), and a number into its scratch register."""
        for port, text in enumerate(texts):
            self._write(port, _FIFO_CONTROL, _FIFO_ON)
            for byte in text:
                self._write(port, _DATA, byte)
            self._write(port, _SCRATCH, len(text) * 3)

    def take(self, length: int, port: int = 0) -> bytes:
        """Take bytes out of a port."""
        return b"".join(os.pread(self.backend.fd, 1, (port << _REGION_SHIFT) + _DATA) for _ in range(length))

    def scratch(self, port: int = 0) -> int:
        """The number in a port's scratch register."""
        return os.pread(self.backend.fd, 1, (port << _REGION_SHIFT) + _SCRATCH)[0]

    def _write(self, port: int, register: int, value: int) -> None:
        os.pwrite(self.backend.fd, bytes([value]), (port << _REGION_SHIFT) + register)


def read_all(uart: Uart, piece: int = 4096) -> bytes:
    """Read until the end of what the state has to give, ``piece`` bytes at a time."""
    buffer, got = memoryview(bytearray(piece)), b""
    while count := uart.backend.read(buffer):
        got += buffer[:count]
    return got


def saved(uart: Uart, piece: int = 4096) -> bytes:
    """The whole state, by a stop-copy; the device runs afterwards."""
    uart.backend.set_state(MigrationState.STOP_COPY)
    state = read_all(uart, piece)
    uart.backend.set_state(MigrationState.RUNNING)
    return state


def bring(uart: Uart, state: MigrationState) -> None:
    """Bring a running device to a state, and see it there."""
    uart.backend.set_state(state)
    assert uart.backend.state() is state
