"""A source's connections: one main channel and N multifd channels, in any order of arrival.

Each says what it is by its first bytes: the main channel by its header, of which all is kept that is read here
(``Connections.said``), a multifd channel by its initial packet, of which exactly its 64 bytes are read. All connections
are listened to at once, as a source may first open all of them and only then speak.

Where a port can be reached, others connect too: what watches over a network, scans it, or wants to do harm. So

1. who says something and does not begin as a source does within :data:`HESITATION` is closed; who says nothing is, too,
   unless channels of a source have come, of which it may be the main channel;
2. at most :data:`MOST` connections are open before a source is there; then the oldest gives way;
3. a source is whole when a main channel has all multifd channels of one uuid: of its own, if its configuration says
   one, as this project's sources do with a random number for each migration. All others are closed then;
4. what is noted of others is at most :data:`NOTES` lines a second;
5. where connections are encrypted, a second begins when the handshake is over, for which there are :data:`HANDSHAKE`
   seconds. Of too many connections those go first that are not proven yet.
"""

from __future__ import annotations

import contextlib
import os
import select
import selectors
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from migpool.errors import PeerError, PeerGone, ProtocolError, TimeLimitExceeded, Untrusted
from migpool.transport.credentials import Credentials
from migpool.transport.listener import check_process
from migpool.transport.sockets import Idle
from migpool.transport.tls import TlsSocket
from migpool.wire.configuration import uuid_within
from migpool.wire.multifd import INITIAL_SIZE, parse_initial_packet
from migpool.wire.stream import MAIN_MAGIC_SIZE, begins_main_channel, header

TICK: Final = 0.2
"""How long a wait lasts at most before it is looked whether to go on, in seconds."""
HESITATION: Final = 1.0
"""Seconds within which a connection must have said what it is."""
HANDSHAKE: Final = 10.0
"""Seconds that a TLS handshake may take from its first byte on."""
MOST: Final = 512
"""How many connections may be open before a source is whole: more than a source opens."""
NOTES: Final = 5
BACKLOG: Final = 256
"""How many connections may wait to be accepted: more than a source opens, so that one too many is seen here."""
SETTLING: Final = 0.2
"""Seconds without a new connection after which a source is taken to have opened all of them."""
GONE: Final = 1.0
"""Seconds in which all connections of a source must have come that has ended one of them."""
TLS_HANDSHAKE: Final = b"\x16\x03"
"""What a connection begins with whose ends have agreed on TLS."""
SILENT: Final = "a connection was closed without a byte, as health checks do: ignored"
_HEAD: Final = len(header())
_AT_ONCE: Final = 64
_MAIN_KEPT: Final = 4096
"""Bytes of a main channel that are read before its source is whole: enough for a configuration."""


class Stranger(Exception):
    """A connection is none of the source's; the message says what it was."""


class Notes:
    """Passes on what is noted, but no more than some lines a second; of the others it says how many there were.

    Arguments:
        noted: takes a line.
    """

    def __init__(self, noted: Callable[[str], object]) -> None:
        self._noted = noted
        self._since = -1.0
        self._said = self._left_out = 0

    def __call__(self, line: str) -> None:
        now = time.monotonic()
        if now - self._since >= 1:
            self._since, self._said = now, 0
        if self._said == NOTES:
            self._left_out += 1
            return
        more = f" (and {self._left_out} others, of which nothing was said)" if self._left_out else ""
        self._said, self._left_out = self._said + 1, 0
        self._noted(line + more)


@dataclass(slots=True)
class Connections:
    """What a source has opened.

    Arguments:
        count: how many multifd channels there must be.
        remedy: what else to say of another number of them.
        noted: told, in a line, of a connection that is none of the source's.

    Attributes:
        main: the main channel, once one has come; the last one that has.
        uuid: what each multifd channel said of its machine or migration; zeros if it has none, or there is no channel.
        complete: whether all of the source has come.
    """

    count: int
    remedy: str = ""
    noted: Callable[[str], object] = lambda _: None
    main: socket.socket | None = None
    uuid: bytes = bytes(16)
    complete: bool = False
    _mains: dict[socket.socket, bytes] = field(default_factory=dict)
    _groups: dict[bytes, dict[int, socket.socket]] = field(default_factory=dict)

    @property
    def main_channel(self) -> socket.socket:
        """The main channel, once all have come; what has been read of it is in ``said``."""
        assert self.main is not None
        return self.main

    @property
    def said(self) -> bytes:
        """What has been read of the main channel, from its first byte on."""
        return self._mains[self.main_channel]

    @property
    def begun(self) -> bool:
        """Whether something of a source has come."""
        return bool(self._mains or self._groups)

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """All connections that are kept."""
        return tuple(self._all())

    @property
    def most(self) -> int:
        """How many multifd channels the source has, if it has shown more than there must be; else 0."""
        own = self._own
        shown = [max(group) + 1 for uuid, group in self._groups.items() if own in (None, uuid)]
        return most if (most := max(shown, default=0)) > self.count else 0

    @property
    def channels(self) -> tuple[socket.socket, ...]:
        """The multifd channels by their numbers; their initial packets have been read."""
        group = self._group
        return tuple(group[number] for number in range(self.count) if number in group)

    def add(self, sock: socket.socket, first: bytes) -> bool:
        """Take what a connection has said so far; returns whether it has said what it is.

        A connection of the source's takes the place of an earlier one of the same kind and uuid: that one was a
        stranger's, or the source has begun again. Once all have come, it is the later one that belongs to nobody here.

        Raises:
            Stranger: it belongs to no migration, or to no other than the one that is under way.
        """
        try:
            main = begins_main_channel(first) if len(first) >= MAIN_MAGIC_SIZE else None
            if main and len(first) >= _HEAD:
                if sock not in self._mains:
                    self._refuse_late("main channel")
                self._mains[sock] = first
                self.main = sock
                self._choose()
                return True
            if main is not False or len(first) < INITIAL_SIZE:
                return False
            packet = parse_initial_packet(first)
        except ProtocolError as error:
            raise Stranger(f"a connection that is no migration's was closed: {foreign(first) or error}") from None
        if packet.channel < self.count:
            self._refuse_late(f"multifd channel {packet.channel}")
        group = self._groups.setdefault(packet.uuid, {})
        if earlier := group.get(packet.channel):
            self.noted(f"a second connection says that it is multifd channel {packet.channel}: the first one is closed")
            earlier.close()
        group[packet.channel] = sock
        self._choose()
        return True

    def _refuse_late(self, what: str) -> None:
        if self.complete:
            raise Stranger(f"a connection was closed that says it is the {what}, which the migration under way has")

    def _choose(self) -> None:
        """See whether a main channel and multifd channels belong together; the last ones that came are preferred."""
        if self.complete:
            return
        for sock in reversed(self._mains):
            own = uuid_within(self._mains[sock])
            for uuid in reversed(self._groups) if self.count else (own or bytes(16),):
                if own in (None, uuid) and all(number in self._groups.get(uuid, {}) for number in range(self.count)):
                    self.main, self.uuid, self.complete = sock, uuid, True
                    self._close_others()
                    return

    def _close_others(self) -> None:
        ours = {self.main, *self._group.values()}
        for sock in [sock for sock in self._all() if sock not in ours]:
            self.noted("a connection of another migration was closed: the channels of one have all come")
            self._forget(sock)

    def drop_ended(self) -> None:
        """Close what has ended while there is no main channel with more than a header: no source is behind it."""
        if self.bare and not self.complete:
            for sock in [sock for sock in self._all() if _ended(sock)]:
                self.noted("a connection that began as a source's does was closed: ignored")
                self._forget(sock)

    @property
    def bare(self) -> bool:
        """Whether no source is behind what has come: channels without a main channel, or a header and no more."""
        return all(len(said) == _HEAD for said in self._mains.values())

    def drop_all(self) -> None:
        """Close all that has come."""
        for sock in list(self._all()):
            self.noted("a connection that begins as a source's does was closed: no others of its came")
            self._forget(sock)

    def drop_oldest(self) -> None:
        """Close the connection that came first."""
        for sock in self._all():
            self._forget(sock)
            return

    def _forget(self, sock: socket.socket) -> None:
        sock.close()
        self._mains.pop(sock, None)
        if sock is self.main:
            self.main = next(reversed(self._mains), None)
        for uuid, group in list(self._groups.items()):
            for number in [number for number, one in group.items() if one is sock]:
                del group[number]
            if not group:
                del self._groups[uuid]

    def _all(self) -> Iterator[socket.socket]:
        for group in self._groups.values():
            yield from group.values()
        yield from self._mains

    @property
    def _own(self) -> bytes | None:
        """What the main channel says of its uuid, or the channels of a whole source do."""
        if self.complete and self.count:
            return self.uuid
        return None if self.main is None else uuid_within(self._mains[self.main])

    @property
    def _group(self) -> dict[int, socket.socket]:
        """The channels of the source, or of the one of which most have come."""
        if self.complete:
            return self._groups.get(self.uuid, {})
        own = self._own
        groups = [group for uuid, group in self._groups.items() if own in (None, uuid)]
        return max(groups, key=len, default={})

    @property
    def ended(self) -> bool:
        """Whether the source has ended one of them already, as it does when it has said everything, or has gone."""
        return self.main is not None and any(map(_ended, (self.main, *self._group.values())))

    def given_up(self) -> str:
        """What has come of a source that has ended a connection before all had come, in words."""
        return (
            f"the source opened {len(self.channels)} of {self.count} multifd channels and "
            f"{'no' if self.main is None else 'the'} main channel, then ended one: it failed or was cancelled there; "
            f"or {self.remedy or 'both ends need the same number of channels'}"
        )

    def missing(self, unclear: int, limit: float) -> str:
        """What has not come in time, in words.

        Arguments:
            unclear: how many connections have not said what they are.
            limit: the time, in seconds.
        """
        return (
            f"the source opened {len(self.channels)} of {self.count} multifd channels and "
            f"{'no' if self.main is None else 'the'} main channel within {limit:g} s"
            f"{f', and {unclear} connections that have not said what they are' if unclear else ''}: "
            f"{self.remedy or 'both ends need the same number of channels'}"
        )


def _ended(sock: socket.socket) -> bool:
    watch = select.poll()
    watch.register(sock, select.POLLRDHUP)
    return bool(watch.poll(0))


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


@dataclass(slots=True)
class _Guest:
    """A connection that has not said yet what it is.

    Attributes:
        limit: how many seconds it has, from ``since`` on, for what must come next.
        proven: whether there is no handshake that must come to its end first.
        greeting: whether that has begun.
        said: what it has said so far, behind the handshake.
    """

    limit: float
    proven: bool
    greeting: bool = False
    said: bytes = b""
    since: float = field(default_factory=time.monotonic)

    def give(self, limit: float) -> None:
        """Give it so many seconds from now on."""
        self.limit, self.since = limit, time.monotonic()

    @property
    def late(self) -> bool:
        """Whether its time is over."""
        return time.monotonic() - self.since > self.limit

    def __str__(self) -> str:
        if self.greeting:
            what = "did not end its TLS handshake"
        else:
            what = f"said {self.said[:8].hex()} and no more" if self.said else "said nothing"
        return f"{what} within {self.limit:g} s"


class Arrivals:
    """Accepts a source's connections, and listens to each until it has said what it is.

    Arguments:
        listener: where they come.
        connections: takes those that have said it.
        prepare: sets a connection's options.
        stack: closes the connections.
        silence: seconds that a connection may say nothing.
        credentials: this end's, if the connections are to be encrypted.
        anybody: take whatever process connects to a UNIX socket.
    """

    def __init__(
        self,
        listener: socket.socket,
        connections: Connections,
        prepare: Callable[[socket.socket], None],
        stack: contextlib.ExitStack,
        silence: float = HESITATION,
        credentials: Credentials | None = None,
        anybody: bool = False,
    ) -> None:
        self._listener = listener
        self._credentials = credentials
        self._anybody = anybody
        self._connections = connections
        self._prepare = prepare
        self._silence = silence
        self._guests: dict[socket.socket, _Guest] = {}
        self._noted = connections.noted = Notes(connections.noted)
        self._selector = stack.enter_context(contextlib.closing(selectors.DefaultSelector()))
        stack.callback(self._close_every)
        listener.setblocking(False)  # a connection may be gone again before it is accepted
        self._selector.register(listener, selectors.EVENT_READ)

    @property
    def unclear(self) -> int:
        """How many connections have not said what they are, and are still open."""
        return len(self._guests)

    def fileno(self) -> int:
        """What to wait for until there is something to :meth:`take`."""
        return self._selector.fileno()

    def take(self, wait: float) -> None:
        """Accept who comes, and hear what they say, for ``wait`` seconds at most.

        Raises:
            PeerError: the source has more channels than there must be.
        """
        self._hear_all(wait)
        self._count_them()

    def take_pending(self) -> None:
        """Hear all who have connected by now; raises as :meth:`take`. Who has said nothing is given a moment."""
        self._settle()
        self._count_them()

    def close(self) -> None:
        """Close all that have not said what they are, and hear nobody any more."""
        for sock in self._guests:
            sock.close()
        self._guests.clear()
        self._selector.close()

    def _close_every(self) -> None:
        for sock in (*self._guests, *self._connections.sockets):
            sock.close()

    def _settle(self) -> None:
        deadline = time.monotonic() + 2 * SETTLING
        while (left := deadline - time.monotonic()) > 0:
            if not self._hear_all(0) and not (self._guests and self._hear_all(min(left, SETTLING))):
                break

    def _count_them(self) -> None:
        connections = self._connections
        if connections.complete and connections.most:
            deadline = time.monotonic() + GONE
            while time.monotonic() < deadline and self._hear_all(SETTLING):  # the others are on their way
                pass
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
                    for _ in range(_AT_ONCE):
                        if not self._accept():
                            break
                elif sock.fileno() >= 0:  # another may have taken its place since
                    self._hear(sock)
            except Stranger as stranger:
                self._noted(str(stranger))
        self._dismiss()
        return bool(ready)

    def _accept(self) -> bool:
        """Let one in; returns whether there was one."""
        try:
            sock = self._listener.accept()[0]
        except BlockingIOError:
            return False
        except OSError:  # it has been reset since, or there are no descriptors
            self._drop_oldest()
            raise Stranger(SILENT) from None
        try:
            self._prepare(sock)
            if not self._anybody:
                check_process(sock, "the source", _owner(self._listener))
        except BaseException as error:
            sock.close()
            if isinstance(error, Untrusted):
                raise Stranger(f"a connection was closed: {error}") from None
            if isinstance(error, OSError):
                raise Stranger(SILENT) from None
            raise
        if self._credentials is not None:
            sock = self._credentials.accepted(sock)
        self._guests[sock] = _Guest(self._silence, proven=self._credentials is None)
        self._selector.register(sock, selectors.EVENT_READ)
        if len(self._guests) + len(self._connections.sockets) > MOST:
            self._drop_oldest()
            raise Stranger(f"{MOST} connections were open that are no source's: the oldest was closed")
        return True

    def _drop_oldest(self) -> None:
        oldest = next(iter(self._guests), None)
        if oldest is not None:
            self._forget(next((sock for sock, guest in self._guests.items() if not guest.proven), oldest), close=True)
        elif not self._connections.complete:
            self._connections.drop_oldest()

    def _dismiss(self) -> None:
        """Close who has not said in time what it is."""
        for sock, guest in list(self._guests.items()):
            # Where a source has begun, a silent connection may be its main channel.
            waits = self._connections.begun and not self._connections.complete and guest.proven and not guest.said
            if guest.late and not waits:
                self._forget(sock, close=True)
                self._noted(f"a connection {guest}: closed")

    def _hear(self, sock: socket.socket) -> None:
        guest = self._guests[sock]
        try:
            if not guest.proven and not self._is_proven(sock, guest):
                return
            while more := _read(sock, guest.said):
                if not guest.said:
                    guest.give(HESITATION)
                guest.said += more
                if self._connections.add(sock, guest.said):
                    self._forget(sock)
                    return
                if not _is_unread(sock):
                    return
        except Stranger:
            self._forget(sock, close=True)
            raise

    def _is_proven(self, sock: socket.socket, guest: _Guest) -> bool:
        """Go on with a handshake; whether it is over, and more has come already."""
        assert isinstance(sock, TlsSocket)
        if not guest.greeting:
            guest.greeting = True
            guest.give(HANDSHAKE)
        try:
            guest.proven = sock.shake_hands()
        except (Untrusted, PeerGone) as error:
            raise Stranger(f"a connection was closed: {error}") from None
        if guest.proven:
            guest.greeting = False
            guest.give(self._silence)
        return guest.proven and _is_unread(sock)

    def _forget(self, sock: socket.socket, *, close: bool = False) -> None:
        self._selector.unregister(sock)
        del self._guests[sock]
        if close:
            sock.close()


def accept_all(
    listener: socket.socket,
    connections: Connections,
    *,
    first_limit: float,
    limit: float,
    prepare: Callable[[socket.socket], None],
    check: Idle,
    stack: contextlib.ExitStack,
    silence: float = HESITATION,
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
        silence: seconds that a connection may say nothing.
        credentials: this end's, if the connections are to be encrypted; who is not trusted is noted and forgotten.
        anybody: take whatever process connects to a UNIX socket.

    Returns:
        What goes on listening: whatever comes later, and speaks, is one connection too many.

    Raises:
        TimeLimitExceeded: a source did not come, or not all of it.
        PeerError: it has more channels, or went away.
    """
    arrivals = Arrivals(listener, connections, prepare, stack, silence, credentials, anybody)
    first = time.monotonic() + first_limit
    deadline = first
    begun = ended = False
    while not connections.complete:
        check()
        if (left := deadline - time.monotonic()) <= 0:
            if not begun or (connections.bare and deadline >= first):
                raise TimeLimitExceeded(f"no source has come within {first_limit:g} s")
            if connections.bare:
                connections.drop_all()
                begun, deadline = False, first
                continue
            if connections.most:
                told = took(connections.count, connections.most)
                raise PeerError(f"{told}; {connections.remedy}" if connections.remedy else told)
            if ended:
                raise PeerGone(connections.given_up())
            raise TimeLimitExceeded(connections.missing(arrivals.unclear, limit))
        arrivals.take(min(TICK, left))
        connections.drop_ended()
        if begun is not connections.begun:
            begun = connections.begun
            deadline = time.monotonic() + limit if begun else first
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


def _is_unread(sock: socket.socket) -> bool:
    return isinstance(sock, TlsSocket) and sock.unread


def _read(sock: socket.socket, said: bytes) -> bytes:
    """What more a connection says of itself, if it has said this so far."""
    if len(said) < MAIN_MAGIC_SIZE:
        size = MAIN_MAGIC_SIZE - len(said)
    else:
        size = (_MAIN_KEPT if said.startswith(header()[:MAIN_MAGIC_SIZE]) else INITIAL_SIZE) - len(said)
    try:
        more = sock.recv(size)
    except BlockingIOError:
        return b""
    except (OSError, Untrusted, PeerGone):
        more = b""
    if not more and said:
        raise Stranger("a connection was closed before it had said what it is: ignored")
    if not more:
        raise Stranger(SILENT)
    return more
