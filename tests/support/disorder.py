"""A relay that lets the connections of a migration pass one another, as its seed says, whatever they carry."""

from __future__ import annotations

import contextlib
import random
import selectors
import socket
import threading
from types import TracebackType
from typing import Final, Self

__all__ = ["Disorder"]

PIECE: Final = 64 * 1024
LIMIT: Final = 20.0
TICK: Final = 0.2


class Disorder:
    """Relays to a port of this host while the context is entered.

    Arguments:
        to: the port.
        seed: of the order. With an odd one the second connection is passed on only while no other has anything.

    Attributes:
        port: where it listens.
    """

    def __init__(self, to: int, seed: int) -> None:
        self._to = to
        self._dice = random.Random(seed)
        self._holds = bool(seed % 2)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._over = False
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over = True
        self._thread.join(LIMIT)
        self._listener.close()

    def _run(self) -> None:
        others: dict[socket.socket, socket.socket] = {}
        with selectors.DefaultSelector() as selector, contextlib.ExitStack() as stack:
            selector.register(self._listener, selectors.EVENT_READ)
            while not self._over:
                ready = [key.fileobj for key, _ in selector.select(TICK)]
                if self._listener in ready:
                    near = stack.enter_context(self._listener.accept()[0])
                    far = stack.enter_context(socket.create_connection(("127.0.0.1", self._to), LIMIT))
                    for sock, other in ((near, far), (far, near)):
                        sock.settimeout(LIMIT)
                        others[sock] = other
                        selector.register(sock, selectors.EVENT_READ)
                    continue
                held = list(others)[2] if self._holds and len(others) > 2 else None
                able = [sock for sock in ready if sock is not held] or ready
                if able:
                    chosen = self._dice.choice(able)
                    assert isinstance(chosen, socket.socket)
                    if not self._pass_on(chosen, others[chosen]):
                        selector.unregister(chosen)

    def _pass_on(self, sock: socket.socket, other: socket.socket) -> bool:
        """Pass a piece on; whether more may follow."""
        try:
            piece = sock.recv(self._dice.randrange(1, PIECE))
            if piece:
                other.sendall(piece)
                return True
            other.shutdown(socket.SHUT_WR)
        except OSError:
            for each in (sock, other):
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
        return False
