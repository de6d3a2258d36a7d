"""The source's connections: one main channel and N multifd channels, each saying first what it is."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable

from migpool.transport.accept import took
from migpool.transport.address import Address
from migpool.transport.sockets import Idle, connect, send_all
from migpool.wire.multifd import initial_packet
from migpool.wire.stream import header


def connect_all(
    address: Address,
    channels: int,
    *,
    limit: float,
    prepare: Callable[[socket.socket], None],
    check: Idle,
    stack: contextlib.ExitStack,
) -> tuple[socket.socket, tuple[socket.socket, ...]]:
    """Open one main channel and ``channels`` multifd channels.

    Arguments:
        address: of the destination.
        limit: how long all of them may take, in seconds.
        prepare: sets a connection's options.
        check: called before each; raises to give up.
        stack: closes the connections.

    Returns:
        The main channel, on which the stream's header has been sent, and the multifd channels by their numbers, on each
        of which its initial packet has.

    Raises:
        PeerError: nobody listened there in that time, or went away, or took fewer channels.
        UsageError: the address does not exist.
    """
    deadline = time.monotonic() + limit

    def opened(taken: str = "") -> socket.socket:
        check()
        sock = stack.enter_context(connect(address, deadline, limit, taken=taken))
        prepare(sock)
        return sock

    main = opened()
    # The destination must know how the stream begins before it can make sense of a channel.
    send_all(main, [header()], "main channel")
    found = []
    for number in range(channels):
        sock = opened(took(number, channels))
        send_all(sock, [initial_packet(number)], f"channel {number}")
        found.append(sock)
    return main, tuple(found)
