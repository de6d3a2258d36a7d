"""A vfio-user client and a vfio-user server that know nothing of ours: bytes by hand, for the tests of both."""

from __future__ import annotations

import contextlib
import errno
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

VERSION, GET_INFO, DMA_MAP, DMA_UNMAP, DMA_READ, RESET, FEATURE, READ, WRITE = 1, 4, 2, 3, 11, 13, 16, 17, 18
REGION_INFO, IRQ_INFO, SET_IRQS, REGION_READ, REGION_WRITE = 5, 7, 8, 9, 10
GET, SET, PROBE = 1 << 16, 1 << 17, 1 << 18
LIMIT = 20.0
STATES = ("ERROR", "STOP", "RUNNING", "STOP_COPY", "RESUMING", "RUNNING_P2P", "PRE_COPY", "PRE_COPY_P2P")


class Gone(Exception):
    """The server ended the connection."""


class RawClient:
    """One connection; ``ask`` returns the error number and the payload."""

    def __init__(self, path: str, agree: bool = True, most: int = 1 << 20) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(LIMIT)
        self.socket.connect(path)
        self.number = 0
        self.capabilities: dict[str, object] = {}
        if agree:
            proposed = {"max_msg_fds": 1, "max_data_xfer_size": most, "migration": {"pgsize": 4096}, "migpool": {}}
            table = json.dumps({"capabilities": proposed}).encode() + b"\0"
            error, answer = self.ask(VERSION, struct.pack("=HH", 0, 2) + table)
            assert not error
            self.capabilities = json.loads(answer[4:].rstrip(b"\0"))["capabilities"]

    def send(self, command: int, payload: bytes = b"", flags: int = 0) -> None:
        self.number = self.number % 0xFFFF + 1
        header = struct.pack("=HHIII", self.number, command, 16 + len(payload), flags, 0)
        self.socket.sendall(header + payload)

    def answer(self, command: int) -> tuple[int, bytes]:
        number, what, size, flags, error = struct.unpack("=HHIII", self.exactly(16))
        assert (number, what) == (self.number, command)
        assert flags & 0xF == 1
        assert bool(flags & 0x20) == bool(error)
        return error, self.exactly(size - 16)

    def ask(self, command: int, payload: bytes = b"") -> tuple[int, bytes]:
        self.send(command, payload)
        return self.answer(command)

    def exactly(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            more = self.socket.recv(length - len(data))
            if not more:
                raise Gone
            data += more
        return data

    def feature(self, flags: int, body: bytes = b"", argsz: int | None = None) -> tuple[int, bytes]:
        error, answer = self.ask(FEATURE, struct.pack("=II", 16 if argsz is None else argsz, flags) + body)
        return error, answer[8:]

    @property
    def state(self) -> str:
        error, answer = self.feature(GET | 2)
        assert not error
        return STATES[struct.unpack("=II", answer)[0]]

    def go(self, name: str) -> int:
        return self.feature(SET | 2, struct.pack("=II", STATES.index(name), 0))[0]

    def read(self, size: int) -> tuple[int, bytes]:
        error, answer = self.ask(READ, struct.pack("=II", 8 + size, size))
        if error:
            return error, b""
        came = struct.unpack("=II", answer[:8])[1]
        return 0, answer[8 : 8 + came]

    def write(self, data: bytes) -> int:
        return self.ask(WRITE, struct.pack("=II", 8 + len(data), len(data)) + data)[0]

    def read_all(self, size: int = 100_000) -> bytes:
        data = b""
        while True:
            error, part = self.read(size)
            assert not error
            data += part
            if len(part) < size:
                return data

    def close(self) -> None:
        self.socket.close()


@dataclass
class Device:
    """The device of a :class:`HandServer`: one that takes every state, and has ten bytes; that cannot migrate at all if
    its flags are negative."""

    flags: int = 1
    state: int = 2
    content: bytes = b"0123456789"
    offset: int = 0
    loaded: bytes = b""


Handler = Callable[["HandServer", socket.socket, int, int, int, bytes], bool]
"""Handles a message (connection, number, command, flags, payload); false leaves it to the server."""


class HandServer:
    """A server that does what a plain one does, after ``misbehave`` has had its way with a message.

    Like other servers it serves one client at a time. ``seen`` has every command, in order; ``clients`` counts.
    """

    def __init__(self, path: Path, misbehave: Handler | None = None, device: Device | None = None) -> None:
        self.path = str(path)
        self.misbehave = misbehave
        self.device = device or Device()
        self.seen: list[int] = []
        self.clients = 0
        self.writes: list[int] = []
        self.capabilities: dict[str, object] = {"max_data_xfer_size": 1 << 20, "migration": {"pgsize": 4096}}
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(self.path)
        self.listener.listen()
        self.ended = threading.Event()
        self.current: socket.socket | None = None
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def _serve(self) -> None:
        while not self.ended.is_set():
            connection, _ = self.listener.accept()
            if self.ended.is_set():
                connection.close()
                return
            self.current = connection
            self.clients += 1
            with connection, contextlib.suppress(OSError, Gone):
                while True:
                    number, command, size, flags, _ = struct.unpack("=HHIII", self.exactly(connection, 16))
                    self.seen.append(command)
                    if self.misbehave is not None and command == WRITE and size > 1 << 31:
                        return
                    payload = self.exactly(connection, size - 16)
                    if self.misbehave is None or not self.misbehave(self, connection, number, command, flags, payload):
                        self.handle(connection, number, command, flags, payload)

    @staticmethod
    def exactly(connection: socket.socket, length: int) -> bytes:
        data = b""
        while len(data) < length:
            more = connection.recv(length - len(data))
            if not more:
                raise Gone
            data += more
        return data

    @staticmethod
    def reply(connection: socket.socket, number: int, command: int, payload: bytes = b"", error: int = 0) -> None:
        flags = 1 | (0x20 if error else 0)
        connection.sendall(struct.pack("=HHIII", number, command, 16 + len(payload), flags, error) + payload)

    def handle(self, connection: socket.socket, number: int, command: int, flags: int, payload: bytes) -> None:
        error, answer = self.carry_out(command, payload)
        if not flags & 0x10:
            self.reply(connection, number, command, answer, error)

    def carry_out(self, command: int, payload: bytes) -> tuple[int, bytes]:
        device = self.device
        if command == VERSION:
            text = json.dumps({"capabilities": self.capabilities}).encode() + b"\0"
            return 0, struct.pack("=HH", 0, 2) + text
        if command == RESET:
            device.state, device.offset, device.loaded = 2, 0, b""
            return 0, b""
        if command == FEATURE:
            argsz, flags = struct.unpack("=II", payload[:8])
            if flags == GET | 1 and device.flags >= 0:
                return 0, struct.pack("=IIQ", argsz, flags, device.flags)
            if flags == GET | 2:
                return 0, struct.pack("=IIIi", argsz, flags, device.state, -1)
            if flags == SET | 2:
                device.state = struct.unpack("=II", payload[8:])[0]
                return 0, struct.pack("=IIIi", argsz, flags, device.state, -1)
            return errno.EINVAL, b""
        size = struct.unpack("=II", payload[:8])[1]
        if command == READ and device.state in (3, 6, 7):
            part = device.content[device.offset : device.offset + size]
            device.offset += len(part)
            return 0, struct.pack("=II", 8 + size, len(part)) + part.ljust(size, b"\xee")
        if command == WRITE and device.state == 4:
            device.loaded += payload[8:]
            self.writes.append(len(payload) - 8)
            return 0, b""
        return errno.EINVAL, b""

    def die(self, connection: socket.socket) -> None:
        """Go away as a process does that ends; for ``misbehave`` to call."""
        self.ended.set()
        self.listener.close()
        connection.shutdown(socket.SHUT_RDWR)

    def stop(self) -> None:
        self.ended.set()
        current = self.current
        if current is not None:
            with contextlib.suppress(OSError):
                current.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as last:
            last.connect(self.path)
        self.thread.join(LIMIT)
        self.listener.close()


@contextlib.contextmanager
def hand_server(
    directory: Path, misbehave: Handler | None = None, device: Device | None = None
) -> Iterator[HandServer]:
    """A server at ``directory``/s until the block ends."""
    server = HandServer(directory / "s", misbehave, device)
    try:
        yield server
    finally:
        server.stop()
