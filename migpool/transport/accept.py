"""A source's connections: one main channel and N multifd channels, in any order of arrival.

Each says what it is by its first bytes. Exactly these are read here, 4 of the main channel and 64 of a multifd channel:
what follows is still in the socket for those who understand it. All connections are listened to at once, as a source
may first open all of them and only then speak.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from migpool.errors import PeerGone, ProtocolError, TimeLimitExceeded
from migpool.transport.sockets import Idle
from migpool.units import count_of
from migpool.wire.multifd import INITIAL_SIZE, parse_initial_packet
from migpool.wire.stream import MAIN_MAGIC_SIZE, begins_main_channel

TICK: Final = 0.2
"""How long a wait lasts at most before it is looked whether to go on, in seconds."""


@dataclass(slots=True)
class Connections:
    """What a source has opened.

    Arguments:
        count: how many multifd channels there must be.
        remedy: what to do when it opens another number of them.

    Attributes:
        uuid: the machine's uuid as each multifd channel said it; zeros if it has none, or there is no channel.
    """

    count: int
    remedy: str
    uuid: bytes = bytes(16)
    _main: socket.socket | None = None
    _found: dict[int, socket.socket] = field(default_factory=dict)

    @property
    def main_channel(self) -> socket.socket:
        """The main channel, once all have come; its first four bytes, the magic, have been read."""
        assert self._main is not None
        return self._main

    @property
    def channels(self) -> tuple[socket.socket, ...]:
        """The multifd channels by their numbers; their initial packets have been read."""
        return tuple(self._found[number] for number in sorted(self._found))

    @property
    def complete(self) -> bool:
        """Whether all of the source has come."""
        return self._main is not None and len(self._found) == self.count

    def add(self, sock: socket.socket, first: bytes) -> bool:
        """Take what a connection has said so far; returns whether it has said what it is.

        Raises:
            ProtocolError: it belongs to no migration, or to one with other channels.
        """
        if len(first) == MAIN_MAGIC_SIZE and begins_main_channel(first):
            if self._main is not None:
                raise ProtocolError(0, "connection", "one main channel, found a second")
            self._main = sock
            return True
        if len(first) < INITIAL_SIZE:
            return False
        packet = parse_initial_packet(first)
        if packet.channel >= self.count or packet.channel in self._found:
            right = f"channels 0 to {self.count - 1}, each once" if self.count else "no multifd channel"
            raise ProtocolError(0, "multifd initial packet", f"{right}, found {packet.channel}: {self.remedy}")
        if self._found and packet.uuid != self.uuid:
            raise ProtocolError(8, "multifd initial packet", "the same uuid on each channel, found two")
        self._found[packet.channel] = sock
        self.uuid = packet.uuid
        return True

    def missing(self, opened: int, limit: float) -> str:
        """What has not come in time, in words, when so many connections were opened."""
        silent = opened - len(self._found) - (self._main is not None)
        unknown = f", and {count_of(silent, 'connection')} that did not say what for" if silent else ""
        return (
            f"the source opened {len(self._found)} of {self.count} multifd channels and "
            f"{'no' if self._main is None else 'the'} main channel within {limit:g} s"
            f"{unknown}: {self.remedy}"
        )


def one_too_many(channels: int, remedy: str) -> ProtocolError:
    """The error for a connection beyond the main channel and ``channels`` multifd channels."""
    return ProtocolError(0, "connection", f"a main channel and {channels} for multifd, found one more: {remedy}")


def accept_all(
    listener: socket.socket,
    channels: int,
    *,
    first_limit: float,
    limit: float,
    prepare: Callable[[socket.socket], None],
    check: Idle,
    stack: contextlib.ExitStack,
    remedy: str = "both ends need the same number of channels",
) -> Connections:
    """Accept one main channel and ``channels`` multifd channels.

    Arguments:
        first_limit: how long to wait for the first connection, in seconds.
        limit: how long the others may take after it, and each to say what it is.
        prepare: sets a connection's options.
        check: called several times a second; raises to give up.
        stack: closes the connections.
        remedy: what to do about another number of channels, for the error.

    Raises:
        TimeLimitExceeded: a source did not come, or not all of it.
        ProtocolError: what came is no migration, or not one with this number of channels.
        PeerGone: a connection was closed, or broke, before it said what it is.
    """
    arrived = Connections(channels, remedy)
    said: dict[socket.socket, bytes] = {}
    deadline = time.monotonic() + first_limit
    listener.settimeout(TICK)  # a connection may be gone again before it is accepted
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        while not arrived.complete:
            check()
            if (left := deadline - time.monotonic()) <= 0:
                if not said:
                    raise TimeLimitExceeded(f"no source has come within {first_limit:g} s")
                raise TimeLimitExceeded(arrived.missing(len(said), limit))
            for key, _ in selector.select(min(TICK, left)):
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                if sock is not listener:
                    said[sock] += _read(sock, said[sock])
                    if arrived.add(sock, said[sock]):
                        selector.unregister(sock)
                    continue
                try:
                    sock = stack.enter_context(listener.accept()[0])
                except TimeoutError:
                    continue
                if len(said) > channels:
                    raise one_too_many(channels, remedy)
                if not said:
                    deadline = time.monotonic() + limit
                prepare(sock)
                said[sock] = b""
                selector.register(sock, selectors.EVENT_READ)
    return arrived


def _read(sock: socket.socket, said: bytes) -> bytes:
    """What more a connection says of itself, if it has said this so far."""
    try:
        more = sock.recv((MAIN_MAGIC_SIZE if len(said) < MAIN_MAGIC_SIZE else INITIAL_SIZE) - len(said))
    except BlockingIOError:
        return b""
    except OSError as error:
        raise PeerGone(f"a connection of the source broke ({error.strerror or error})") from None
    if not more:
        raise PeerGone("a connection was closed before it said what it is")
    return more
