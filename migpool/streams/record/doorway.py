"""Where connections wait until it is known whether they are a source's: by their first bytes, which stay in the socket.

A connection that is closed without a byte, as health checks and port scans do, is noted and forgotten; so is one that
begins as nothing of a migration does. One that says nothing waits, and is nobody's business, unless the source may
finish by postcopy: then it may be the preempt channel, on which a source says nothing before the destination asks for
a page, while the destination waits for the connection alone.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from collections.abc import Callable, Iterator
from enum import Enum, auto
from typing import Final

from migpool.transport.accept import SILENT, TLS_HANDSHAKE
from migpool.wire.multifd import MAGIC
from migpool.wire.stream import FILE_MAGIC

HESITATION: Final = 0.2
"""Seconds that a silent connection is left alone, since who only looks whether somebody listens closes it by then."""
_MULTIFD_MAGIC: Final = MAGIC.to_bytes(4, "big")
_ENOUGH: Final = 4


class Begins(Enum):
    """How a connection begins."""

    MAIN = auto()
    MULTIFD = auto()
    TLS = auto()
    SILENT = auto()
    """Nothing has been said on it, or pages of a postcopy."""


_BEGINNINGS: Final = {FILE_MAGIC: Begins.MAIN, _MULTIFD_MAGIC: Begins.MULTIFD, TLS_HANDSHAKE: Begins.TLS}


class Doorway:
    """The connections that wait; a pollable, ready when one of them has something to tell.

    Arguments:
        noted: called with a line about a connection that was closed.
    """

    def __init__(self, noted: Callable[[str], None]) -> None:
        self._noted = noted
        self._selector = selectors.DefaultSelector()
        self._since: dict[socket.socket, float] = {}

    def fileno(self) -> int:
        """What to wait for."""
        return self._selector.fileno()

    def close(self) -> None:
        """Close all that still wait."""
        self._selector.close()
        for sock in self._since:
            sock.close()

    def accept(self, listener: socket.socket) -> None:
        """Let one in; it may have gone again since."""
        with contextlib.suppress(OSError):
            sock, _ = listener.accept()
            sock.setblocking(False)
            self._since[sock] = time.monotonic()
            self._selector.register(sock, selectors.EVENT_READ)

    def come(self, *, postcopy: bool) -> Iterator[tuple[socket.socket, Begins]]:
        """Those of which it is known now what they are; the caller owns them.

        Arguments:
            postcopy: whether the source may have a preempt channel.
        """
        for key, _ in self._selector.select(0):
            sock = key.fileobj
            assert isinstance(sock, socket.socket)
            begins = self._look(sock, postcopy)
            self._let_go(sock)
            if begins is None:
                sock.close()
            else:
                yield sock, begins
        if postcopy:
            now = time.monotonic()
            for sock in [sock for sock, since in self._since.items() if now - since > HESITATION]:
                self._let_go(sock)
                yield sock, Begins.SILENT

    def _let_go(self, sock: socket.socket) -> None:
        self._selector.unregister(sock)
        del self._since[sock]

    def _look(self, sock: socket.socket, postcopy: bool) -> Begins | None:
        """How it begins; None, noted, if it is not a source's."""
        try:
            first = sock.recv(_ENOUGH, socket.MSG_PEEK)
        except OSError:
            first = b""
        if not first:
            self._noted(SILENT)
            return None
        for beginning, begins in _BEGINNINGS.items():
            if beginning.startswith(first) or first.startswith(beginning):
                return begins
        if postcopy:
            return Begins.SILENT
        self._noted(f"a connection that begins with {first.hex()} is no migration's, and was closed")
        return None
