"""A line between the two ends that changes what passes: a byte, or a whole packet."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path

from migpool.transport.address import Address
from migpool.wire.devicestate import HEADER_SIZE
from migpool.wire.multifd import INITIAL_SIZE

LIMIT = 20.0

Tamper = Callable[[str, int, bytes], bytes | None]
"""Given the device's idstr, the chunk's index and its payload, says what to pass on; ``None`` leaves the packet out."""


class Line:
    """Listens in the place of the destination, and passes everything on, device state packet by device state packet.

    Arguments:
        path: where to listen.
        packets: changes a device state packet.
        main: changes what passes on the main channel, given all of it so far and the new piece.
        indices: changes the index of a device state packet, given the device's idstr and that index.
    """

    def __init__(
        self,
        path: Path,
        packets: Tamper | None = None,
        main: Callable[[bytes], bytes] | None = None,
        indices: Callable[[str, int], int] | None = None,
    ) -> None:
        self.path = path
        self._packets = packets or (lambda _idstr, _index, payload: payload)
        self._main = main or (lambda data: data)
        self._indices = indices or (lambda _idstr, index: index)
        self._threads: list[threading.Thread] = []
        self._socks: list[socket.socket] = []

    def __call__(self, address: Address) -> Address:
        """Stand before ``address``; what the source connects to instead."""
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self.path))
        listener.listen()
        self._socks.append(listener)
        self._start(self._serve, listener, address)
        return Address(path=str(self.path))

    def close(self) -> None:
        """End every connection, and wait for the threads."""
        for sock in self._socks:
            _end(sock)
        for thread in self._threads:
            thread.join(LIMIT)
        for sock in self._socks:
            sock.close()
        self.path.unlink(missing_ok=True)

    def _start(self, run: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=run, args=args, name="line")
        self._threads.append(thread)
        thread.start()

    def _serve(self, listener: socket.socket, address: Address) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            far = socket.socket(socket.AF_UNIX)
            far.connect(address.path)
            self._socks += [near, far]
            self._start(self._forward, near, far)
            self._start(self._back, far, near)

    def _forward(self, near: socket.socket, far: socket.socket) -> None:
        try:
            first = near.recv(4, socket.MSG_WAITALL)
            if first == b"QEVM":
                far.sendall(first)
                while data := near.recv(1 << 20):
                    far.sendall(self._main(data))
            else:
                far.sendall(first + near.recv(INITIAL_SIZE - 4, socket.MSG_WAITALL))
                while len(header := near.recv(HEADER_SIZE, socket.MSG_WAITALL)) == HEADER_SIZE:
                    self._pass_on(header, near, far)
        except OSError:
            pass
        try:
            far.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def _pass_on(self, header: bytes, near: socket.socket, far: socket.socket) -> None:
        size = int.from_bytes(header[272:276], "big") - 12
        idstr = header[12:268].rstrip(b"\0").decode()
        index = int.from_bytes(header[280:284], "big")
        payload = near.recv(size, socket.MSG_WAITALL)
        changed = self._packets(idstr, index, payload)
        if changed is not None:
            said = self._indices(idstr, index).to_bytes(4, "big")
            far.sendall(header[:280] + said + header[284:] + changed)

    @staticmethod
    def _back(far: socket.socket, near: socket.socket) -> None:
        try:
            while data := far.recv(4096):
                near.sendall(data)
        except OSError:
            pass
        _end(near)


def _end(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
