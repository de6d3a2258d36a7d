"""Where connections wait until it is known whether they are a source's: by their first bytes, which stay in the socket.

A connection that is closed without a byte, as health checks and port scans do, is noted and forgotten; so is one that
begins as nothing of a migration does, or says too little for one. One that says nothing waits a while, unless the
source may finish by postcopy: then it may be the preempt channel, on which a source says nothing before the destination
asks for a page, while the destination waits for the connection alone. No more wait at once than a source opens.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from collections.abc import Callable, Iterator
from enum import Enum, auto
from typing import Final

from migpool.transport.accept import HESITATION, SILENT, Notes
from migpool.transport.connections import MOST
from migpool.wire.multifd import MAGIC
from migpool.wire.stream import FILE_MAGIC, POSTCOPY_RESUMED, TLS_HANDSHAKE

_ALONE: Final = 0.2
"""Seconds that a silent connection is left alone, since who only looks whether somebody listens closes it by then."""
_MULTIFD_MAGIC: Final = MAGIC.to_bytes(4, "big")
_ENOUGH: Final = 8
"""Bytes that a source says at once: the magic and the version of the main channel, or of a multifd channel."""
_SILENCE: Final = 10.0
"""Seconds that a connection may say nothing: a source without a return path says its first byte after its set-up."""


class Begins(Enum):
    """How a connection begins."""

    MAIN = auto()
    MULTIFD = auto()
    TLS = auto()
    RESUMED = auto()
    """A postcopy goes on, after a break, on a new main channel."""
    SILENT = auto()
    """Nothing has been said on it, or pages of a postcopy."""
    PARTLY = auto()
    """Too little has been said yet."""


_BEGINNINGS: Final = {
    FILE_MAGIC: Begins.MAIN,
    _MULTIFD_MAGIC: Begins.MULTIFD,
    TLS_HANDSHAKE: Begins.TLS,
    POSTCOPY_RESUMED: Begins.RESUMED,
}


class Doorway:
    """The connections that wait; a pollable, ready when one of them has something to tell.

    Arguments:
        noted: called with a line about a connection that was closed.
    """

    def __init__(self, noted: Callable[[str], None]) -> None:
        self._noted = Notes(noted)
        self._selector = selectors.DefaultSelector()
        self._partly: set[socket.socket] = set()
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
            if len(self._since) > MOST:
                self._turn_away(next(iter(self._since)), f"{MOST} connections waited that said nothing")

    def come(self, *, postcopy: bool) -> Iterator[tuple[socket.socket, Begins]]:
        """Those of which it is known now what they are; the caller owns them.

        Arguments:
            postcopy: whether the source may have a preempt channel.
        """
        for sock in (*(key.fileobj for key, _ in self._selector.select(0)), *self._partly):
            assert isinstance(sock, socket.socket)
            begins = self._look(sock, postcopy)
            if begins is Begins.PARTLY:
                if sock not in self._partly:  # it would be ready all the time
                    self._selector.unregister(sock)
                    self._partly.add(sock)
                continue
            self._let_go(sock)
            if begins is None:
                sock.close()
            else:
                yield sock, begins
        now = time.monotonic()
        if postcopy:
            for sock in [sock for sock, since in self._since.items() if now - since > _ALONE]:
                self._let_go(sock)
                yield sock, Begins.SILENT
        for sock, since in list(self._since.items()):
            limit = HESITATION if sock in self._partly else _SILENCE
            if now - since > limit:
                self._turn_away(sock, f"a connection did not say within {limit:g} s what it is")

    def _turn_away(self, sock: socket.socket, why: str) -> None:
        self._noted(f"{why}: it was closed")
        self._let_go(sock)
        sock.close()

    def _let_go(self, sock: socket.socket) -> None:
        if sock in self._partly:
            self._partly.remove(sock)
        else:
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
            if first.startswith(beginning) and (len(first) == _ENOUGH or begins is Begins.TLS):
                return begins
            if beginning.startswith(first[: len(beginning)]):
                return Begins.PARTLY
        if postcopy:
            return Begins.SILENT
        self._noted(f"a connection that begins with {first.hex()} is no migration's, and was closed")
        return None
