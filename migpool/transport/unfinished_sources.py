"""What becomes of those that have begun as a source does, and are not whole in their time: strangers, or a source."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TypeAlias

from migpool.errors import MigpoolError
from migpool.transport.connections import GONE, Connections, has_ended

Refuse: TypeAlias = Callable[[socket.socket, bytes, MigpoolError], object]
"""Tells a source why it is not taken: its main channel, what was read of it, the reason."""


class UnfinishedSources:
    """Those that have begun as a source does, and are not whole in their time.

    Arguments:
        connections: all that have begun.
        refuse: tells one why it is not taken; None: nothing is said.
        known: whether only those can connect that this end trusts.

    Attributes:
        last: what was wrong with the last one.
    """

    def __init__(self, connections: Connections, refuse: Refuse | None, *, known: bool) -> None:
        self._connections = connections
        self._refuse = refuse
        self._known = known
        self._refused: dict[socket.socket, MigpoolError] = {}
        self.last = ""

    def look(self, unclear: int) -> None:
        """Let go whose time is over.

        Raises:
            MigpoolError: it is a source's that cannot be taken.
        """
        connections = self._connections
        if connections.complete:
            return
        self._refused = {main: error for main, error in self._refused.items() if connections.is_main(main)}
        for main, error in self._refused.items():
            if has_ended(main) and connections.mains == 1:
                raise error  # as a source does
        for sock in connections.late():
            if connections.is_main(sock):
                self._let_go(sock, connections.fault(sock, unclear))
            elif sock.fileno() >= 0:
                connections.drop(sock, "a connection that begins as a source's does was closed: no others of its came")

    def _let_go(self, main: socket.socket, error: MigpoolError | None) -> None:
        connections = self._connections
        if error is None:
            connections.drop(
                main, "a main channel was closed that ended before any multifd channel of its came: ignored"
            )
            return
        if self._known:
            raise error
        if self._refuse is not None and main not in self._refused and not has_ended(main):
            self._refuse(main, connections.said, error)
            self._refused[main] = error
            connections.give(main, GONE)
            return
        error = self._refused.pop(main, error)
        self.last = f"; the last one to begin: {error}"
        connections.drop(main, f"a connection that begins as a source's does was closed: {error}")
