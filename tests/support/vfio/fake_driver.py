"""A VFIO driver that is a few variables, behind the calls into the kernel, and as odd as real ones were seen to be.

The numbers of the requests and the structures are written down here once more, so that a mistake in the backend's own
is not repeated. Descriptors are real: those of a driver that cannot be waited for are files in memory, which ``poll``
calls ready at once and epoll refuses, as the kernel's sample driver's are; those of one that can are event descriptors.
"""

from __future__ import annotations

import errno
import os
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from migpool_plugins.vfio.kernel.abi import Calls
from migpool_plugins.vfio.migration import READABLE, Flags, MigrationState, path

__all__ = ["HEADER", "FakeDevice", "FakeDriver"]

M = MigrationState
HEADER = b"magic of a fake!"
WHOLE = Flags.STOP_COPY | Flags.P2P | Flags.PRE_COPY


def refuse(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@dataclass
class Data:
    """What is behind a data descriptor.

    Arguments:
        fd: its number.
        loading: whether it is written to.
        content: what can be read, or has been written.
    """

    fd: int
    loading: bool
    content: bytearray
    at: int = 0
    left: bool = False


@dataclass
class FakeDevice:
    """One device.

    What goes wrong: ``failing`` has error numbers of requests by name ("reset", "data size", "pre-copy info", "get",
    "migration") and by state; ``half_way`` is a state at which a walk over several arcs ends with EIO; ``reading`` and
    ``writing`` are error numbers of the next reads and writes, 0 for one that goes well. ``meanwhile`` is called in
    each.
    """

    group: str = "7"
    character_device: str = ""
    flags: Flags = WHOLE
    content: bytes = HEADER + b" and the rest"
    pollable: bool = False
    takes: int = 1 << 20
    here: MigrationState = M.RUNNING
    failing: dict[str | MigrationState, int] = field(default_factory=dict)
    half_way: MigrationState | None = None
    reading: list[int] = field(default_factory=list)
    writing: list[int] = field(default_factory=list)
    meanwhile: Callable[[], None] = lambda: None
    data: Data | None = None
    resets: int = 0

    def leave(self) -> None:
        """Leave the states in which data moves, as a reset from outside does too."""
        if self.data is not None:
            self.data.left = True
            self.data = None

    def step(self, there: MigrationState) -> int:
        """Walk one arc; returns the new data descriptor, or -1."""
        if there in self.failing:
            raise refuse(self.failing[there])
        if self.here is M.RESUMING:
            assert self.data is not None
            if len(self.data.content) < len(self.content):
                raise refuse(errno.EINVAL)
            self.content = bytes(self.data.content)
        if self.here in READABLE and there in READABLE:
            if self.data is not None and there is M.STOP_COPY:
                self.data.content[:] = self.content
                self.ready()
            self.here = there
            return -1
        self.leave()
        self.here = there
        if there not in READABLE and there is not M.RESUMING:
            return -1
        loading = there is M.RESUMING
        content = self.content if there is M.STOP_COPY else HEADER
        fd = os.eventfd(0) if self.pollable else os.memfd_create("data")
        self.data = Data(fd, loading, bytearray() if loading else bytearray(content))
        self.ready()
        return fd

    def ready(self, content: bytes = b"") -> None:
        """Let a selector see that there is data to read; more than there was, if some is given."""
        if self.data is not None and self.pollable and not self.data.loading:
            self.data.content += content
            if len(self.data.content) > self.data.at:
                os.eventfd_write(self.data.fd, 1)


class FakeDriver(Calls):
    """The calls into a kernel that has some devices.

    Arguments:
        root: where its files are; what stands there decides nothing here.
        devices: by name.

    Attributes:
        said: every request in its order, by number, and every path that was opened.
        version, extensions, viable: what containers and groups answer.
        closed_to: error numbers of paths.
    """

    def __init__(self, root: Path, devices: dict[str, FakeDevice]) -> None:
        self.root = root
        self.devices = devices
        self.said: list[str] = []
        self.version = 0
        self.extensions = {3}
        self.viable = True
        self.closed_to: dict[str, int] = {}
        self.failing: dict[int, int] = {}
        self.attached: list[tuple[str, bytes]] = []
        self._files: dict[int, str] = {}
        self._data: dict[int, tuple[FakeDevice, Data]] = {}

    def opened(self) -> Counter[str]:
        """What is open, by what it is, and how often."""
        found = [what for fd, what in self._files.items() if self._is_open(fd)]
        return Counter(found)

    def _is_open(self, fd: int) -> bool:
        try:
            os.fstat(fd)
        except OSError:
            return False
        return True

    def _new(self, what: str) -> int:
        fd = os.memfd_create(what)
        self._files[fd] = what
        return fd

    def open(self, path: str) -> int:
        name = str(Path(path).relative_to(self.root / "dev"))
        self.said.append(name)
        if name in self.closed_to:
            raise refuse(self.closed_to[name])
        for device, fake in self.devices.items():
            if fake.character_device and name == f"vfio/devices/{fake.character_device}":
                return self._new(device)
        return self._new(name)

    def ioctl(self, fd: int, number: int, argument: int | bytearray) -> int:
        if fd in self._data and number == 0x3B79:
            return self._precopy_info(*self._data[fd], argument)
        what = self._files[fd]
        self.said.append(f"{number:x}")
        if number in self.failing:
            raise refuse(self.failing[number])
        if what in self.devices:
            return self._device(self.devices[what], what, number, argument)
        if number == 0x3B64:
            return self.version
        if number == 0x3B65:
            return int(argument in self.extensions)
        if number == 0x3B66:
            assert argument == 3
            return 0
        assert isinstance(argument, bytearray)
        if number == 0x3B67:
            assert struct.unpack("II", argument) == (8, 0)
            argument[4:] = struct.pack("I", int(self.viable))
            return 0
        if number == 0x3B68:
            assert self._files[struct.unpack("i", argument)[0]] == "vfio/vfio"
            return 0
        if number == 0x3B6A:
            name = bytes(argument)
            assert name.endswith(b"\0")
            if what != f"vfio/{self.devices[name[:-1].decode()].group}":
                raise refuse(errno.ENODEV)
            return self._new(name[:-1].decode())
        if number == 0x3B81:
            assert what == "iommu"
            assert struct.unpack("III", argument) == (12, 0, 0)
            argument[8:] = struct.pack("I", 42)
            return 0
        raise refuse(errno.ENOTTY)

    def _device(self, device: FakeDevice, name: str, number: int, argument: int | bytearray) -> int:
        if number == 0x3B6F:
            if "reset" in device.failing:
                raise refuse(device.failing["reset"])
            device.leave()
            device.here = M.RUNNING
            device.resets += 1
            return 0
        assert isinstance(argument, bytearray)
        if number in (0x3B76, 0x3B77):
            self.attached.append((name, bytes(argument)))
            return 0
        if number != 0x3B75:
            raise refuse(errno.ENOTTY)
        size, flags = struct.unpack_from("II", argument)
        assert size == len(argument) == 16
        if flags == 1 << 17 | 2:
            self._set_state(device, argument)
            return 0
        answers: dict[int, tuple[str, Callable[[], bytes]]] = {
            1 << 16 | 1: ("migration", lambda: struct.pack("Q", device.flags)),
            1 << 16 | 2: ("get", lambda: struct.pack("Ii", device.here, -1)),
            1 << 16 | 9: ("data size", lambda: struct.pack("Q", len(device.content))),
        }
        what, answer = answers[flags]
        if what in device.failing:
            raise refuse(device.failing[what])
        argument[8:] = answer()
        return 0

    def _set_state(self, device: FakeDevice, argument: bytearray) -> None:
        """Walk to a state; a walk that fails writes -1 for the descriptor, as one that brings none does."""
        target, sent = struct.unpack_from("Ii", argument, 8)
        assert sent == -1
        argument[12:] = struct.pack("i", -1)
        try:
            way = path(device.here, M(target), device.flags)
        except ValueError:
            way = None
        if way is None:
            raise refuse(errno.EINVAL)
        for there in way:
            fd = device.step(there)
            if fd >= 0:
                assert device.data is not None
                self._data[fd] = (device, device.data)
            if there is device.half_way and there is not target:
                raise refuse(errno.EIO)
        if way:
            argument[12:] = struct.pack("i", fd)

    def _precopy_info(self, device: FakeDevice, data: Data, argument: int | bytearray) -> int:
        assert isinstance(argument, bytearray)
        if "pre-copy info" in device.failing:
            raise refuse(device.failing["pre-copy info"])
        if device.here not in (M.PRE_COPY, M.PRE_COPY_P2P):
            raise refuse(errno.EINVAL)
        assert struct.unpack("IIQQ", argument) == (24, 0, 0, 0)
        argument[8:] = struct.pack("QQ", len(data.content) - data.at, 5)
        return 0

    def read(self, fd: int, buffer: memoryview) -> int:
        device, data = self._data[fd]
        device.meanwhile()
        if device.reading and (number := device.reading.pop(0)):
            raise refuse(number)
        if data.left:
            raise refuse(errno.ENODEV)
        part = data.content[data.at : data.at + len(buffer)]
        if not part and device.pollable and not os.get_blocking(fd):
            raise refuse(errno.EAGAIN)
        buffer[: len(part)] = part
        data.at += len(part)
        return len(part)

    def write(self, fd: int, data: memoryview) -> int:
        device, file = self._data[fd]
        device.meanwhile()
        if device.writing and (number := device.writing.pop(0)):
            raise refuse(number)
        if file.left:
            raise refuse(errno.ENODEV)
        if len(file.content) + len(data) > len(device.content):
            raise refuse(errno.ENOMEM)
        part = data[: device.takes]
        had_header = len(file.content) >= len(HEADER)
        file.content += part
        # Refused at the write that completes it, and never again.
        if not had_header and len(file.content) >= len(HEADER) and not file.content.startswith(HEADER):
            raise refuse(errno.EFAULT)
        return len(part)
