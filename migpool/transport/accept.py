"""A source's connections: one main channel and N multifd channels, in any order of arrival.

Each says what it is by its first bytes. Exactly these are read here, 4 of the main channel and 64 of a multifd channel:
what follows is still in the socket for those who understand it. All connections are listened to at once, as a source
may first open all of them and only then speak.

Where a port can be reached, others connect too: what watches over a network connects and closes. So a connection counts
from its first byte on, and one that is closed without any is noted and forgotten.
"""

from __future__ import annotations

import contextlib
import os
import select
import selectors
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from migpool.errors import PeerError, PeerGone, ProtocolError, TimeLimitExceeded, Untrusted
from migpool.transport.credentials import Credentials
from migpool.transport.listener import check_process
from migpool.transport.sockets import Idle
from migpool.transport.tls import TlsSocket
from migpool.units import count_of
from migpool.wire.multifd import INITIAL_SIZE, parse_initial_packet
from migpool.wire.stream import MAIN_MAGIC_SIZE, begins_main_channel

TICK: Final = 0.2
"""How long a wait lasts at most before it is looked whether to go on, in seconds."""
BACKLOG: Final = 256
"""How many connections may wait to be accepted: more than a source opens, so that one too many is seen here."""
SETTLING: Final = 0.2
"""Seconds without a new connection after which a source is taken to have opened all of them."""
GONE: Final = 1.0
"""Seconds in which all connections of a source must have come that has ended one of them."""
TLS_HANDSHAKE: Final = b"\x16\x03"
"""What a connection begins with whose ends have agreed on TLS."""
SILENT: Final = "a connection was closed without a byte, as health checks do: ignored"


class Stranger(Exception):
    """A connection is none of the source's; the message says what it was."""


@dataclass(slots=True)
class Connections:
    """What a source has opened.

    Arguments:
        count: how many multifd channels there must be.
        remedy: what else to say of another number of them.
        noted: told, in a line, of a connection that is none of the source's.

    Attributes:
        main: the main channel, once it has come.
        most: how many multifd channels the source has, if it has shown more than there must be; else 0.
        uuid: the machine's uuid as each multifd channel said it; zeros if it has none, or there is no channel.
    """

    count: int
    remedy: str = ""
    noted: Callable[[str], object] = lambda _: None
    most: int = 0
    uuid: bytes = bytes(16)
    main: socket.socket | None = None
    _found: dict[int, socket.socket] = field(default_factory=dict)

    @property
    def main_channel(self) -> socket.socket:
        """The main channel, once all have come; its first four bytes, the magic, have been read."""
        assert self.main is not None
        return self.main

    @property
    def begun(self) -> bool:
        """Whether something of the source has come."""
        return self.main is not None or bool(self._found or self.most)

    @property
    def channels(self) -> tuple[socket.socket, ...]:
        """The multifd channels by their numbers; their initial packets have been read."""
        return tuple(self._found[number] for number in sorted(self._found))

    @property
    def complete(self) -> bool:
        """Whether all of the source has come."""
        return self.main is not None and len(self._found) == self.count

    def add(self, sock: socket.socket, first: bytes) -> bool:
        """Take what a connection has said so far; returns whether it has said what it is.

        A connection of the source's takes the place of an earlier one of the same kind: that one was a stranger's, or
        the source has begun again. Once all have come, it is the later one that belongs to nobody here.

        Raises:
            ProtocolError: the channels are not those of one machine.
            Stranger: it belongs to no migration, or to no other than the one that is under way.
        """
        try:
            if len(first) == MAIN_MAGIC_SIZE and begins_main_channel(first):
                self._replace(self.main, "main channel")
                self.main = sock
                return True
            if len(first) < INITIAL_SIZE:
                return False
            packet = parse_initial_packet(first)
        except ProtocolError as error:
            raise Stranger(f"a connection that is no migration's was closed: {foreign(first) or error}") from None
        if packet.channel >= self.count:
            self.most = max(self.most, packet.channel + 1)
            return True
        self._replace(self._found.get(packet.channel), f"multifd channel {packet.channel}")
        self._found[packet.channel] = sock
        if packet.uuid != self.uuid and len(self._found) > 1:
            raise ProtocolError(8, "multifd initial packet", "the same uuid on each channel, found two")
        self.uuid = packet.uuid
        return True

    def _replace(self, earlier: socket.socket | None, what: str) -> None:
        if self.complete:
            raise Stranger(f"a connection was closed that says it is the {what}, which the migration under way has")
        if earlier is not None:
            self.noted(f"a second connection says that it is the {what}: the first one is closed")
            earlier.close()

    @property
    def ended(self) -> bool:
        """Whether the source has ended one of them already, as it does when it has said everything, or has gone."""
        watch = select.poll()
        for sock in (self.main, *self._found.values()):
            if sock is not None:
                watch.register(sock, select.POLLRDHUP)
        return bool(watch.poll(0))

    def given_up(self) -> str:
        """What has come of a source that has ended a connection before all had come, in words."""
        return (
            f"the source opened {len(self._found)} of {self.count} multifd channels and "
            f"{'no' if self.main is None else 'the'} main channel, then ended one: it failed or was cancelled there; "
            f"or {self.remedy or 'both ends need the same number of channels'}"
        )

    def missing(self, unclear: int, limit: float) -> str:
        """What has not come in time, in words.

        Arguments:
            unclear: how many connections have not said what they are.
            limit: the time, in seconds.
        """
        unknown = count_of(unclear, "connection")
        return (
            f"the source opened {len(self._found)} of {self.count} multifd channels and "
            f"{'no' if self.main is None else 'the'} main channel within {limit:g} s"
            f"{f', and {unknown} that did not say what for' if unclear else ''}: "
            f"{self.remedy or 'both ends need the same number of channels'}"
        )


def foreign(first: bytes) -> str:
    """What a connection is that begins with these bytes and is no migration's; empty if it is not known here."""
    return (
        "it is TLS (16 03): give --tls here, too, or let the source migrate without tls-creds"
        if first[:2] == TLS_HANDSHAKE
        else ""
    )


def took(number: int, channels: int) -> str:
    """What is said at both ends when the source has more multifd channels than the destination."""
    return f"the destination took {number} of {channels} multifd channels: both ends need the same number of channels"


class Arrivals:
    """Accepts a source's connections, and listens to each until it has said what it is.

    Arguments:
        listener: where they come.
        connections: takes those that have said it.
        prepare: sets a connection's options.
        stack: closes the connections.
        credentials: this end's, if the connections are to be encrypted.
        anybody: take whatever process connects to a UNIX socket.
    """

    def __init__(
        self,
        listener: socket.socket,
        connections: Connections,
        prepare: Callable[[socket.socket], None],
        stack: contextlib.ExitStack,
        credentials: Credentials | None = None,
        anybody: bool = False,
    ) -> None:
        self._listener = listener
        self._credentials = credentials
        self._anybody = anybody
        self._greeting: set[socket.socket] = set()
        self._connections = connections
        self._prepare = prepare
        self._stack = stack
        self._said: dict[socket.socket, bytes] = {}
        self._selector = stack.enter_context(contextlib.closing(selectors.DefaultSelector()))
        listener.settimeout(TICK)  # a connection may be gone again before it is accepted
        self._selector.register(listener, selectors.EVENT_READ)

    @property
    def begun(self) -> bool:
        """Whether anything has been said."""
        return self._connections.begun or any(self._said.values())

    @property
    def unclear(self) -> int:
        """How many connections have not said what they are, and are still open."""
        return len(self._said)

    def fileno(self) -> int:
        """What to wait for until there is something to :meth:`take`."""
        return self._selector.fileno()

    def take(self, wait: float) -> None:
        """Accept who comes, and hear what they say, for ``wait`` seconds at most.

        Raises:
            PeerError: the source has more channels than there must be, or broke one that was saying what it is.
            ProtocolError: the channels are not those of one machine.
        """
        self._hear_all(wait)
        self._count_them()

    def take_pending(self) -> None:
        """Hear all who have connected by now; raises as :meth:`take`. Who has said nothing is given a moment."""
        for _ in range(2 * BACKLOG):
            if not self._hear_all(0) and not (self._said and self._hear_all(SETTLING)):
                break
        self._count_them()

    def _count_them(self) -> None:
        connections = self._connections
        if connections.most:
            for _ in range(2 * BACKLOG):  # the others are on their way
                if not self._hear_all(SETTLING):
                    break
            told = took(connections.count, connections.most)
            raise PeerError(f"{told}; {connections.remedy}" if connections.remedy else told)

    def _hear_all(self, wait: float) -> bool:
        """Do so once; returns whether there was anything."""
        ready = self._selector.select(wait)
        for key, _ in ready:
            sock = key.fileobj
            assert isinstance(sock, socket.socket)
            try:
                if sock is self._listener:
                    self._accept()
                else:
                    self._hear(sock)
            except Stranger as stranger:
                self._connections.noted(str(stranger))
        return bool(ready)

    def _accept(self) -> None:
        try:
            sock = self._stack.enter_context(self._listener.accept()[0])
            self._prepare(sock)
        except TimeoutError:
            return
        except OSError:
            raise Stranger(SILENT) from None  # it has been reset since
        try:
            if not self._anybody:
                check_process(sock, "the source", _owner(self._listener))
        except Untrusted as error:
            sock.close()
            raise Stranger(f"a connection was closed: {error}") from None
        if self._credentials is not None:
            sock = self._stack.enter_context(self._credentials.accepted(sock))
            self._greeting.add(sock)
        self._said[sock] = b""
        self._selector.register(sock, selectors.EVENT_READ)

    def _hear(self, sock: socket.socket) -> None:
        said = self._said[sock]
        try:
            if sock in self._greeting and not self._is_trusted(sock):
                return
            while more := _read(sock, said):
                said += more
                self._said[sock] = said
                if self._connections.add(sock, said):
                    self._forget(sock)
                    return
                if not isinstance(sock, TlsSocket) or not sock.unread:
                    return
        except (Stranger, PeerGone) as gone:
            self._forget(sock)
            sock.close()
            if isinstance(gone, PeerGone) and self._connections.complete:
                raise Stranger(f"{gone}: ignored") from None
            raise

    def _is_trusted(self, sock: socket.socket) -> bool:
        """Go on with a handshake; whether it is over."""
        assert isinstance(sock, TlsSocket)
        try:
            if not sock.shake_hands():
                return False
        except (Untrusted, PeerGone) as error:
            raise Stranger(f"a connection was closed: {error}") from None
        self._greeting.remove(sock)
        return True

    def _forget(self, sock: socket.socket) -> None:
        self._greeting.discard(sock)
        self._selector.unregister(sock)
        del self._said[sock]


def accept_all(
    listener: socket.socket,
    connections: Connections,
    *,
    first_limit: float,
    limit: float,
    prepare: Callable[[socket.socket], None],
    check: Idle,
    stack: contextlib.ExitStack,
    credentials: Credentials | None = None,
    anybody: bool = False,
) -> Arrivals:
    """Accept a source's main channel and multifd channels.

    Arguments:
        connections: how many there must be; takes them as they come.
        first_limit: how long to wait for the first connection, in seconds.
        limit: how long the others may take after its first byte, and each to say what it is.
        prepare: sets a connection's options.
        check: called several times a second; raises to give up.
        stack: closes the connections.
        credentials: this end's, if the connections are to be encrypted; who is not trusted is noted and forgotten.
        anybody: take whatever process connects to a UNIX socket.

    Returns:
        What goes on listening: whatever comes later, and speaks, is one connection too many.

    Raises:
        TimeLimitExceeded: a source did not come, or not all of it.
        PeerError: it has more channels, or went away.
        ProtocolError: its channels are not those of one machine.
    """
    arrivals = Arrivals(listener, connections, prepare, stack, credentials, anybody)
    deadline = time.monotonic() + first_limit
    begun = ended = False
    while not connections.complete:
        check()
        if (left := deadline - time.monotonic()) <= 0:
            if not begun:
                raise TimeLimitExceeded(f"no source has come within {first_limit:g} s")
            if ended:
                raise PeerGone(connections.given_up())
            raise TimeLimitExceeded(connections.missing(arrivals.unclear, limit))
        arrivals.take(min(TICK, left))
        if not begun and arrivals.begun:
            begun = True
            deadline = time.monotonic() + limit
        if not ended and connections.ended:  # it has opened them all, or will open no more
            ended = True
            deadline = min(deadline, time.monotonic() + GONE)
    return arrivals


def _owner(listener: socket.socket) -> int | None:
    """Whose the file of a UNIX socket is; ``None`` if there is none."""
    try:
        return os.stat(listener.getsockname()).st_uid if listener.family == socket.AF_UNIX else None  # noqa: PTH116
    except OSError:
        return None


def _read(sock: socket.socket, said: bytes) -> bytes:
    """What more a connection says of itself, if it has said this so far."""
    try:
        more = sock.recv((MAIN_MAGIC_SIZE if len(said) < MAIN_MAGIC_SIZE else INITIAL_SIZE) - len(said))
    except BlockingIOError:
        return b""
    except (OSError, Untrusted, PeerGone):
        more = b""
    if not more and said:
        raise PeerGone("a connection was closed before it said what it is")
    if not more:
        raise Stranger(SILENT)
    return more
