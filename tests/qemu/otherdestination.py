"""A destination that is neither QEMU nor migpool: it reads everything, and answers what a test tells it to."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from migpool.wire.returnpath import Message, encode
from migpool.wire.stream import begins_main_channel

__all__ = ["OtherDestination"]

LIMIT: Final = 40.0
_PIECE: Final = 1 << 16


class OtherDestination:
    """Accepts connections and reads all of them in a thread of its own; leaving the context ends both.

    Arguments:
        path: the UNIX socket to listen on.
        channels: how many multifd channels will come.
    """

    def __init__(self, path: Path, channels: int) -> None:
        self.uri = f"unix:{path}"
        self._channels = channels
        self._stack = contextlib.ExitStack()
        self._listener = self._stack.enter_context(socket.socket(socket.AF_UNIX))
        self._listener.bind(str(path))
        self._listener.listen(channels + 1)
        self._wake, self._woken = socket.socketpair()
        self._stack.enter_context(self._wake)
        self._stack.enter_context(self._woken)
        self._connections: list[tuple[bool, socket.socket]] = []
        self._all_are_here = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="other destination")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._wake.sendall(b"x")
        self._thread.join(LIMIT)
        self._stack.close()
        assert not self._thread.is_alive()

    def wait_for_all(self) -> None:
        """Wait until all connections have come and said what they are."""
        assert self._all_are_here.wait(LIMIT), "not all connections have come"

    def close(self, *, main: bool) -> None:
        """End the connections of one kind; the source notices it."""
        for is_main, sock in self._connections:
            if is_main is main:
                sock.shutdown(socket.SHUT_RDWR)

    def answer(self, *messages: Message) -> None:
        """Say something on the return path."""
        for is_main, sock in self._connections:
            if is_main:
                sock.sendall(b"".join(map(encode, messages)))

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select(LIMIT):
                    sock = key.fileobj
                    assert isinstance(sock, socket.socket)
                    if sock is self._woken:
                        return
                    if sock is self._listener:
                        selector.register(self._stack.enter_context(sock.accept()[0]), selectors.EVENT_READ)
                    elif not self._read(sock):
                        selector.unregister(sock)

    def _read(self, sock: socket.socket) -> bool:
        try:
            data = sock.recv(_PIECE)
        except OSError:
            return False
        if data and all(sock is not known for _, known in self._connections):
            self._connections.append((begins_main_channel(data), sock))
            if len(self._connections) > self._channels:
                self._all_are_here.set()
        return bool(data)
