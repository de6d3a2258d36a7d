"""The connections of a source, in whatever order they come: each says what it is by its first bytes.

Exactly the first bytes are read here, 4 of the main channel and 64 of a multifd channel, so that what follows is still
in the socket for those who understand it. Connections are listened to all at once, as a source may first open all of
them and only then speak.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from migpool.errors import Cancelled, PeerError, ProtocolError, TimeLimitExceeded
from migpool.transport.sockets import prepare
from migpool.wire.multifd import INITIAL_SIZE, InitialPacket, parse_initial_packet
from migpool.wire.role import ROLE_SIZE, Role, role

__all__ = ["TICK", "Arrived", "one_too_many", "wait_for_all"]

TICK: Final = 0.2
"""How long a wait lasts at most before it is looked whether to go on, in seconds."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """What a source has opened.

    Arguments:
        main: the main channel; its magic has been read.
        greeting: the magic.
        channels: the multifd channels by their numbers; their initial packets have been read.
        uuid: the machine's uuid as each channel said it; zeros if it has none, or there is no channel.
    """

    main: socket.socket
    greeting: bytes
    channels: tuple[socket.socket, ...]
    uuid: bytes


@dataclass(slots=True)
class _Arrivals:
    channels: int
    main: socket.socket | None = None
    greeting: bytes = b""
    found: dict[int, socket.socket] = field(default_factory=dict)
    uuids: set[bytes] = field(default_factory=set)

    @property
    def complete(self) -> bool:
        return self.main is not None and len(self.found) == self.channels

    def main_channel(self, sock: socket.socket, magic: bytes) -> None:
        if self.main is not None:
            raise ProtocolError(0, "connection", "one main channel, found a second")
        self.main, self.greeting = sock, magic

    def channel(self, sock: socket.socket, packet: InitialPacket) -> None:
        if packet.channel >= self.channels or packet.channel in self.found:
            right = f"channels 0 to {self.channels - 1}, each once" if self.channels else "no multifd channel"
            raise ProtocolError(
                0, "multifd initial packet", f"{right}, found {packet.channel}: give --channels as the source has"
            )
        self.found[packet.channel] = sock
        self.uuids.add(packet.uuid)
        if len(self.uuids) > 1:
            raise ProtocolError(8, "multifd initial packet", "the same uuid on each channel, found two")


def one_too_many(channels: int) -> ProtocolError:
    """The error for a connection beyond the main channel and ``channels`` multifd channels."""
    return ProtocolError(
        0, "connection", f"a main channel and {channels} for multifd, found one more: give --channels as the source has"
    )


def wait_for_all(
    listener: socket.socket,
    channels: int,
    *,
    limit: float,
    cancelled: Callable[[], bool],
    stack: contextlib.ExitStack,
) -> Arrived:
    """Accept one main channel and ``channels`` multifd channels.

    Arguments:
        limit: how long the others may take after the first one, in seconds. The first is waited for until cancelled.
        cancelled: called several times a second.
        stack: closes the connections.

    Raises:
        TimeLimitExceeded: not all of the source has come.
        ProtocolError: what came is no migration, or has other channels.
        PeerError: a connection was closed at once.
        Cancelled: ``cancelled`` said so.
    """
    arrivals = _Arrivals(channels)
    speaking: dict[socket.socket, bytes] = {}
    deadline = float("inf")
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        while not arrivals.complete:
            if cancelled():
                raise Cancelled("cancelled before the migration began")
            if time.monotonic() > deadline:
                raise TimeLimitExceeded(
                    f"the source opened {len(arrivals.found)} of {channels} multifd channels and "
                    f"{'no' if arrivals.main is None else 'the'} main channel within {limit:g} s: "
                    "give --channels as the source has"
                )
            for key, _ in selector.select(TICK):
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                if sock is not listener:
                    if _listen_to(sock, speaking, arrivals):
                        selector.unregister(sock)
                    continue
                if len(speaking) > channels:
                    raise one_too_many(channels)
                sock = stack.enter_context(listener.accept()[0])
                prepare(sock, limit=limit, tick=TICK)
                speaking[sock] = b""
                selector.register(sock, selectors.EVENT_READ)
                deadline = min(deadline, time.monotonic() + limit)
    assert arrivals.main is not None
    by_number = tuple(arrivals.found[number] for number in sorted(arrivals.found))
    return Arrived(arrivals.main, arrivals.greeting, by_number, next(iter(arrivals.uuids), bytes(16)))


def _listen_to(sock: socket.socket, speaking: dict[socket.socket, bytes], arrivals: _Arrivals) -> bool:
    """Take what a connection says; True if it has said what it is."""
    said = speaking[sock]
    try:
        more = sock.recv((ROLE_SIZE if len(said) < ROLE_SIZE else INITIAL_SIZE) - len(said))
    except BlockingIOError:
        return False
    except OSError as error:
        raise PeerError(f"a connection of the source broke ({error.strerror or error})") from None
    if not more:
        raise PeerError("a connection was closed before it said what it is")
    speaking[sock] = said = said + more
    if len(said) == ROLE_SIZE and role(said) is Role.MAIN:
        arrivals.main_channel(sock, said)
        return True
    if len(said) < INITIAL_SIZE:
        return False
    arrivals.channel(sock, parse_initial_packet(said))
    return True
