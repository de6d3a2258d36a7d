"""Recorders, replays and peers in one process, each on a thread of its own that is joined."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Generic, TypeVar

from migpool.core.machine import Machine
from migpool.migration.destination import Destination
from migpool.migration.report import SideReport
from migpool.migration.settings import Settings
from migpool.schedulers.receiver import ReceiverScheduler
from migpool.streams.record.index import Index
from migpool.streams.record.recorder import Recorder, RecorderLimits
from migpool.transport.address import Address
from migpool.wire.commands import open_return_path, ping
from migpool.wire.configuration import Configuration, configuration
from migpool.wire.sections import Kind
from migpool.wire.stream import header
from tests.support.rig import KIB, LIMIT, Pair, Scripted, contents

T = TypeVar("T")
SIZE = 700_000
FAMILIES = ("unix", "tcp")
GREETING = header() + configuration(Configuration("m")) + open_return_path() + ping(1)
"""What a source says before it moves anything."""
BEGINNING = GREETING + bytes([Kind.START])
"""By which a source has begun to move something."""


def greeting(uuid: bytes) -> bytes:
    """The same, of a source that says which channels are its own."""
    return header() + configuration(Configuration("m", uuid=uuid)) + open_return_path() + ping(1)


class Background(Generic[T]):
    """A call on a thread; ``result`` waits for what it returns."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._got: list[T] = []
        self._error: list[BaseException] = []
        self._call = call
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._got.append(self._call())
        except BaseException as error:  # noqa: BLE001 -- raised again where the result is asked for
            self._error.append(error)

    def result(self) -> T:
        self._thread.join(LIMIT)
        assert not self._thread.is_alive(), "it did not end"
        if self._error:
            raise self._error[0]
        return self._got[0]


class Between:
    """A recorder that listens, with a source's end of its life in ``stop``."""

    def __init__(self, listen: Address, to: Address, directory: Path, limits: RecorderLimits | None = None) -> None:
        heard = threading.Event()
        self._where: list[Address] = []
        self.stop = threading.Event()
        self.warnings: list[str] = []
        self.notes: list[str] = []

        def listening(address: Address) -> None:
            self._where.append(address)
            heard.set()

        recorder = Recorder(
            listen,
            to,
            directory,
            limits=limits,
            listening=listening,
            warn=self.warnings.append,
            noted=self.notes.append,
            stop=self.stop.is_set,
        )
        self._running = Background(recorder.run)
        assert heard.wait(LIMIT)
        self.address = self._where[0]

    def index(self) -> Index:
        """Its index, once it has ended."""
        return self._running.result()


def place(family: str, folder: Path, name: str) -> Address:
    """Somewhere to listen."""
    return Address(path=str(folder / name)) if family == "unix" else Address(host="127.0.0.1")


@contextlib.contextmanager
def listener(family: str, folder: Path, name: str = "destination") -> Iterator[tuple[socket.socket, Address]]:
    """A destination's listening socket."""
    if family == "unix":
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(folder / name))
    else:
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
    with sock:
        sock.listen(16)
        sock.settimeout(LIMIT)
        bound = place(family, folder, name)
        yield sock, bound if bound.path else Address(host="127.0.0.1", port=sock.getsockname()[1])


def dial(address: Address, says: bytes = b"") -> socket.socket:
    """A source's connection, on which something has been said."""
    sock = socket.socket(address.family)
    sock.settimeout(LIMIT)
    sock.connect(address.name)
    if says:
        sock.sendall(says)
    return sock


def accept(sock: socket.socket) -> socket.socket:
    """A connection at a destination."""
    accepted, _ = sock.accept()
    accepted.settimeout(LIMIT)
    return accepted


def read_all(sock: socket.socket) -> bytes:
    """Everything up to the end."""
    parts = []
    while data := sock.recv(1 << 20):
        parts.append(data)
    return b"".join(parts)


def read(sock: socket.socket, size: int) -> bytes:
    """So many bytes."""
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        assert more, f"the end after {len(data)} of {size} bytes"
        data += more
    return data


def reset(sock: socket.socket) -> None:
    """Go away without an end."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def devices(count: int, state: bool = True) -> list[Scripted]:
    """Devices with state, or without it for the destination."""
    return [Scripted(number, contents(SIZE, number) if state else b"") for number in range(count)]


def record_migration(
    folder: Path, count: int = 3, channels: int = 2, family: str = "unix"
) -> tuple[Index, tuple[SideReport, SideReport]]:
    """Migrate through a recorder; the recording is in ``folder / "recording"``."""
    found: list[Between] = []

    def through(address: Address) -> Address:
        found.append(Between(place(family, folder, "near"), address, folder / "recording"))
        return found[0].address

    settings = Settings(channels=channels, chunk=16 * KIB, budget=256 * KIB, peer_limit=LIMIT)
    reports = Pair(devices(count), devices(count, state=False), settings, through=through).run(folder)
    return found[0].index(), reports


class Waiting:
    """A destination of ours that waits for a source."""

    def __init__(
        self,
        folder: Path,
        machine: Sequence[Scripted],
        *,
        family: str = "unix",
        name: str = "machine",
        budget: int = 256 * KIB,
        chunk: int = 16 * KIB,
        channels: int = 2,
        connect_limit: float = 10.0,
    ) -> None:
        heard = threading.Event()
        where: list[Address] = []

        def listening(address: Address) -> None:
            where.append(address)
            heard.set()

        limits = Settings(peer_limit=LIMIT, connect_limit=connect_limit)
        settings = replace(limits, channels=channels, chunk=chunk, budget=budget)
        destination = Destination(Machine(name, machine), settings, ReceiverScheduler(), listening=listening)
        self._running = Background(lambda: destination.run(place(family, folder, "fresh")))
        assert heard.wait(LIMIT)
        self.address = where[0]

    def report(self) -> SideReport:
        """Its report, once it has ended."""
        return self._running.result()
