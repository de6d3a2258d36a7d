"""The destination's connections: one main channel and N multifd channels, in any order of arrival."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from migpool.errors import PeerError, ProtocolError, TimeLimitExceeded
from migpool.transport.sockets import Idle, read_exactly
from migpool.wire.multifd import INITIAL_SIZE, parse_initial_packet
from migpool.wire.role import ROLE_SIZE, Role, role

__all__ = ["Connections", "accept_all"]


@dataclass(frozen=True, slots=True)
class Connections:
    """What a source has opened.

    Attributes:
        main: the main channel; its first four bytes, the magic, have been read.
        channels: the multifd channels by their numbers; their initial packets have been read.
    """

    main: socket.socket
    channels: tuple[socket.socket, ...]


def accept_all(
    listener: socket.socket,
    channels: int,
    *,
    first_limit: float,
    limit: float,
    prepare: Callable[[socket.socket], None],
    check: Idle,
    stack: contextlib.ExitStack,
) -> Connections:
    """Accept one main channel and ``channels`` multifd channels.

    Arguments:
        first_limit: how long to wait for the first connection, in seconds.
        limit: how long the others may take after it, and each to say what it is.
        prepare: sets a connection's options.
        check: called at least every half second; raises to give up.
        stack: closes the connections.

    Raises:
        TimeLimitExceeded: a source did not come, or not all of it.
        ProtocolError: what came is no migration, or not one with this number of channels.
    """
    main: socket.socket | None = None
    found: dict[int, socket.socket] = {}
    deadline = time.monotonic() + first_limit
    while main is None or len(found) < channels:
        sock = _accept(listener, deadline, check)
        if sock is None:
            raise TimeLimitExceeded(_what_is_missing(main is not None, len(found), channels, first_limit, limit))
        if main is None and not found:
            deadline = time.monotonic() + limit
        stack.enter_context(sock)
        prepare(sock)
        first = _read(sock, ROLE_SIZE, deadline, check)
        if role(first) is Role.MAIN:
            if main is not None:
                raise ProtocolError(0, "connection", "one main channel, found a second")
            main = sock
            continue
        packet = parse_initial_packet(first + _read(sock, INITIAL_SIZE - ROLE_SIZE, deadline, check))
        if packet.channel >= channels or packet.channel in found:
            raise ProtocolError(
                0, "multifd initial packet", f"channels 0 to {channels - 1}, each once, found {packet.channel}"
            )
        found[packet.channel] = sock
    return Connections(main, tuple(found[number] for number in sorted(found)))


def _accept(listener: socket.socket, deadline: float, check: Idle) -> socket.socket | None:
    while (left := deadline - time.monotonic()) > 0:
        check()
        listener.settimeout(min(0.5, left))
        try:
            sock, _ = listener.accept()
        except TimeoutError:
            continue
        sock.settimeout(None)
        return sock
    return None


def _read(sock: socket.socket, size: int, deadline: float, check: Idle) -> bytes:
    def idle() -> None:
        check()
        if time.monotonic() > deadline:
            raise TimeLimitExceeded("a connection has not said in time what it is")

    buffer = bytearray(size)
    got = read_exactly(sock, buffer, size, idle)
    if got < size:
        raise PeerError("a connection was closed before it said what it is")
    return bytes(buffer)


def _what_is_missing(main: bool, found: int, channels: int, first_limit: float, limit: float) -> str:
    if not main and not found:
        return f"no source has come within {first_limit:g} s"
    return (
        f"the source opened {found} of {channels} multifd channels and {'the' if main else 'no'} main channel "
        f"within {limit:g} s: both ends need the same number of channels"
    )
