"""The source's connections: one main channel and N multifd channels, each saying first what it is."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable

from migpool.errors import PeerError
from migpool.transport.address import Address
from migpool.transport.connections import took
from migpool.transport.credentials import Credentials
from migpool.transport.listener import check_process
from migpool.transport.sockets import Idle, connect, send_all
from migpool.transport.tls import look
from migpool.wire.multifd import initial_packet


def connect_all(
    address: Address,
    channels: int,
    greeting: bytes,
    uuid: bytes,
    *,
    limit: float,
    prepare: Callable[[socket.socket], None],
    check: Idle,
    stack: contextlib.ExitStack,
    credentials: Credentials | None = None,
    anybody: bool = False,
) -> tuple[socket.socket, tuple[socket.socket, ...]]:
    """Open one main channel and ``channels`` multifd channels.

    Arguments:
        address: of the destination.
        greeting: what the main channel begins with: the stream's header, and a configuration with the uuid.
        uuid: tells the channels of one migration from others', 16 bytes.
        limit: how long all of them may take, in seconds.
        prepare: sets a connection's options.
        check: called before each; raises to give up.
        stack: closes the connections.
        credentials: this end's, if the connections are to be encrypted.
        anybody: take whatever process listens on a UNIX socket.

    Returns:
        The main channel, on which the greeting has been sent, and the multifd channels by their numbers, on each
        of which its initial packet has.

    Raises:
        PeerError: nobody listened there in that time, or went away, or took fewer channels, or is not to be trusted.
        UsageError: the address does not exist.
    """
    deadline = time.monotonic() + limit

    first: list[socket.socket] = []

    def heard() -> None:
        check()
        # A destination that refuses this end says so on the first connection, and then listens no more.
        for sock in first:
            look(sock)

    def opened(taken: str = "") -> socket.socket:
        sock = stack.enter_context(connect(address, deadline, limit, heard, taken=taken))
        if not anybody:
            check_process(sock, f"who listens on {address}")
        if credentials is not None:
            sock = stack.enter_context(credentials.connected(sock, address, deadline, limit, heard))
        prepare(sock)
        return sock

    main = opened()
    first.append(main)
    # The destination must know how the stream begins before it can make sense of a channel.
    send_all(main, [greeting], "main channel")
    found = []
    for number in range(channels):
        try:
            sock = opened(took(number, channels))
            send_all(sock, [initial_packet(number, uuid)], f"channel {number}")
        except PeerError:
            look(main)
            raise
        found.append(sock)
    return main, tuple(found)
