"""A line between a source and a destination that knows the messages that decide whose the machine is.

At one of them, or when a test says so, it holds what passes, or cuts it. The connections may be encrypted: a message is
then in a record that is known by its length.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Literal, TypeAlias

from migpool.core.machine import Machine
from migpool.device import Device
from migpool.migration.sections import MachineSchema
from migpool.transport.address import Address
from migpool.wire.stream import Eof, StreamReader

LIMIT = 20.0
Message: TypeAlias = Literal["EOF", "RUNNING", "SHUT"]
"""The stream's end; the first word of the destination's that the machine runs there, if it says it; its last word."""
_DATA: Final = 23
"""The type of a TLS record with data (RFC 8446, 5.1)."""
_AROUND: Final = 17
"""Bytes of such a record that are not data: a type and a tag."""
_RUNNING, _ANSWER, _ALERT = 28, 8, 2
"""Lengths of messages: of RUNNING, of PONG and SHUT, of what ends a TLS connection."""


class HandoverLine:
    """Listens in the destination's place.

    Arguments:
        path: where.
        devices: a machine's, whose stream is read; none is loaded.
        encrypted: whether the ends use TLS.
        end: how long the record with the stream's end is then, as :attr:`end_seen` of a line before says.
        reached: called with each message before it is passed on, and with its name and a prime once it has been.
    """

    def __init__(
        self,
        path: Path,
        devices: Callable[[], list[Device]],
        reached: Callable[[str], None],
        *,
        encrypted: bool,
        end: int = 0,
    ) -> None:
        self._path = path
        self._devices = devices
        self._encrypted = encrypted
        self._end = end
        self._sizes: list[int] = []
        self._reached = reached
        self._forward, self._back, self._asked = threading.Event(), threading.Event(), threading.Event()
        self._forward.set()
        self._back.set()
        self._sockets: list[socket.socket] = []
        self._mains: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._changes = False

    def __call__(self, address: Address) -> Address:
        """Stand before ``address``; what the source connects to instead."""
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self._path))
        listener.listen()
        self._keep(listener)
        self._start(self._accept, listener, address)
        return Address(path=str(self._path))

    @property
    def end_seen(self) -> int:
        """How long the last record was that the source sent before the one that ends the connection."""
        *_, last, alert = self._sizes
        assert alert == _ALERT
        assert self._sizes.count(last) == 1
        return last

    def close(self) -> None:
        """End what is left, and wait for the threads."""
        self.cut()
        for thread in self._threads:
            thread.join(LIMIT)
            assert not thread.is_alive()
        for sock in self._sockets:
            sock.close()
        self._path.unlink()

    # ------------------------------------------------------------------ what can be done to it

    def cut(self) -> None:
        """End every connection at both ends; what was held is lost."""
        with self._lock:
            for sock in self._sockets:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        for gate in (self._forward, self._back, self._asked):
            gate.set()

    def hold(self) -> None:
        """Let nothing of the main channel pass from the source any more."""
        self._forward.clear()

    def hold_back(self) -> None:
        """Let no answer pass any more."""
        self._back.clear()

    def hold_back_until_asked(self) -> None:
        """Let no answer pass before the source has ended its side."""
        self._back = self._asked

    def change(self) -> None:
        """Change the last byte of the next message."""
        self._changes = True

    # ------------------------------------------------------------------ how things pass

    def _keep(self, sock: socket.socket) -> None:
        with self._lock:
            self._sockets.append(sock)

    def _start(self, run: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=run, args=arguments, name="line")
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket, address: Address) -> None:
        main = True
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            far = socket.socket(socket.AF_UNIX)
            far.connect(address.path)
            self._keep(near)
            self._keep(far)
            # A source opens its main channel first.
            self._start(self._pass, near, far, self._items if main else None, True)
            self._start(self._pass, far, near, self._answers if main else None, False)
            main = False

    def _pass(
        self,
        origin: socket.socket,
        target: socket.socket,
        messages: Callable[[Iterator[bytes]], Iterator[tuple[str, bytes]]] | None,
        forward: bool,
    ) -> None:
        with contextlib.suppress(OSError):
            pieces = iter(lambda: origin.recv(1 << 16), b"")
            for name, data in messages(pieces) if messages else (("", piece) for piece in pieces):
                if name:
                    self._reached(name)
                if messages:
                    self._wait(forward)
                if name and self._changes:
                    data, self._changes = data[:-1] + bytes([data[-1] ^ 1]), False
                target.sendall(data)
                if name:
                    self._reached(name + "'")
        if messages:
            if forward:
                self._asked.set()
            self._wait(forward)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def _wait(self, forward: bool) -> None:
        # Looked up anew each time: the gate may be another one by now.
        assert (self._forward if forward else self._back).wait(LIMIT)

    def _items(self, pieces: Iterator[bytes]) -> Iterator[tuple[str, bytes]]:
        if self._encrypted:
            for size, record in _records(pieces):
                self._sizes.append(size)
                yield "EOF" if size and size == self._end else "", record
            return
        reader = StreamReader(MachineSchema(Machine("machine", self._devices())))
        over = False
        for piece in pieces:
            begin = 0
            for at in range(len(piece)):
                reader.feed(piece[at : at + 1])
                if any(isinstance(event, Eof) for event in reader.events()):
                    yield "", piece[begin:at]
                    yield "EOF", piece[at : at + 1]
                    begin, over = at + 1, True
                if over:
                    break
            yield "", piece[begin:]

    def _answers(self, pieces: Iterator[bytes]) -> Iterator[tuple[str, bytes]]:
        ran = False
        short = 0
        for size, data in _records(pieces) if self._encrypted else _messages(pieces):
            short += size == _ANSWER
            last = short == 2 and size == _ANSWER
            if size == _RUNNING or (last and not ran):
                ran = True
                yield "RUNNING", data
            else:
                yield "SHUT" if last else "", data


def _records(pieces: Iterator[bytes]) -> Iterator[tuple[int, bytes]]:
    """TLS records, each with how many bytes of data are in it."""
    held = b""
    for piece in pieces:
        held += piece
        while len(held) >= 5 and len(held) >= (end := 5 + int.from_bytes(held[3:5], "big")):
            yield (end - 5 - _AROUND if held[0] == _DATA else 0), held[:end]
            held = held[end:]


def _messages(pieces: Iterator[bytes]) -> Iterator[tuple[int, bytes]]:
    """Messages of the return path, each with its length."""
    held = b""
    for piece in pieces:
        held += piece
        while len(held) >= 4 and len(held) >= (end := 4 + int.from_bytes(held[2:4], "big")):
            yield end, held[:end]
            held = held[end:]
