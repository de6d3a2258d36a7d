"""Where a source's connections come: all are listened to at once, as it may first open all of them and only then speak.

Where a port can be reached, others connect too: what watches over a network, scans it, or wants to do harm. So

1. who says something and does not begin as a source does within :data:`HESITATION` is closed; who says nothing is, too,
   unless channels of a source have come, of which it may be the main channel;
2. at most :data:`MOST` connections wait that have not said what they are. Then one gives way: one that is not proven,
   before others; of the address that has most of them; the oldest. So it is with those that have begun as a source's do
   (:mod:`migpool.transport.connections`), apart from these: neither can push out the other;
3. what is noted of others is at most :data:`NOTES` lines a second;
4. a main channel that ends before any channel of its came is forgotten, whatever it said;
5. where connections are encrypted, a second begins when the handshake is over, for which there are :data:`HANDSHAKE`
   seconds;
6. where strangers can begin as a source does, one that does not become whole in its time is forgotten, and the wait
   goes on, unless it does what a stranger has no need to: it goes away when it is told why. Where nobody else can, a
   source that is not whole is an error.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from migpool.errors import PeerGone, TimeLimitExceeded, Untrusted
from migpool.transport.connections import GONE, MAIN_KEPT, Connections
from migpool.transport.credentials import Credentials
from migpool.transport.listener import check_process
from migpool.transport.sockets import Idle
from migpool.transport.strangers import MOST, Stranger, address_of, one_of_most
from migpool.transport.tls import TlsSocket, is_unread, readable
from migpool.transport.unfinished_sources import Refuse, UnfinishedSources
from migpool.wire.multifd import INITIAL_SIZE
from migpool.wire.stream import MAIN_MAGIC_SIZE, header

TICK: Final = 0.2
"""How long a wait lasts at most before it is looked whether to go on, in seconds."""
HESITATION: Final = 1.0
"""Seconds within which a connection must have said what it is."""
HANDSHAKE: Final = 10.0
"""Seconds that a TLS handshake may take from its first byte on."""
NOTES: Final = 5
BACKLOG: Final = 256
"""How many connections may wait to be accepted: more than a source opens, so that one too many is seen here."""
SETTLING: Final = 0.2
"""Seconds without a new connection after which a source is taken to have opened all of them."""
SILENT: Final = "a connection was closed without a byte, as health checks do: ignored"
_AT_ONCE: Final = 64


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
class _Guest:
    """A connection that has not said yet what it is.

    Attributes:
        limit: how many seconds it has, from ``since`` on, for what must come next.
        proven: whether there is no handshake that must come to its end first.
        address: where it comes from.
        greeting: whether that has begun.
        said: what it has said so far, behind the handshake.
    """

    limit: float
    proven: bool
    address: str
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
            raise connections.too_many()

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
            if self._credentials is not None:
                sock = self._credentials.accepted(sock)
        except BaseException as error:
            sock.close()
            if isinstance(error, Untrusted):
                raise Stranger(f"a connection was closed: {error}") from None
            if isinstance(error, OSError):
                raise Stranger(SILENT) from None
            raise
        self._guests[sock] = _Guest(self._silence, self._credentials is None, address_of(sock))
        self._selector.register(sock, selectors.EVENT_READ)
        if len(self._guests) > MOST:
            self._drop_oldest()
            raise Stranger(f"{MOST} connections were open that had not said what they are: one was closed")
        return True

    def _drop_oldest(self) -> None:
        if self._guests:
            unproven = {sock: guest.address for sock, guest in self._guests.items() if not guest.proven}
            every = unproven or {sock: guest.address for sock, guest in self._guests.items()}
            self._forget(one_of_most(every), close=True)

    def _dismiss(self) -> None:
        """Close who has not said in time what it is."""
        for sock, guest in list(self._guests.items()):
            # Where a source has begun, a silent connection may be its main channel.
            waits = self._connections.begun and not self._connections.complete and guest.proven and not guest.said
            if guest.late and not waits and not readable(sock):  # this end itself may have been late
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
                if not is_unread(sock):
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
        return guest.proven and is_unread(sock)

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
    refuse: Refuse | None = None,
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
        refuse: tells a source that is not whole in its time, where it may be a stranger.

    Returns:
        What goes on listening: whatever comes later, and speaks, is one connection too many.

    Raises:
        TimeLimitExceeded: a source did not come, or not all of it.
        PeerError: it has more channels, or went away.
    """
    arrivals = Arrivals(listener, connections, prepare, stack, silence, credentials, anybody)
    known = credentials is not None or (listener.family == socket.AF_UNIX and not anybody)
    connections.limit = limit
    unfinished = UnfinishedSources(connections, refuse, known=known)
    first = time.monotonic() + first_limit
    while not connections.complete:
        check()
        now = time.monotonic()
        if now >= first and (not connections.begun or now >= first + limit):
            raise TimeLimitExceeded(f"no source has come within {first_limit:g} s{unfinished.last}")
        arrivals.take(TICK)
        connections.drop_ended()
        unfinished.look(arrivals.unclear)
    return arrivals


def _owner(listener: socket.socket) -> int | None:
    """Whose the file of a UNIX socket is; ``None`` if there is none."""
    try:
        return os.stat(listener.getsockname()).st_uid if listener.family == socket.AF_UNIX else None  # noqa: PTH116
    except OSError:
        return None


def _read(sock: socket.socket, said: bytes) -> bytes:
    """What more a connection says of itself, if it has said this so far."""
    if len(said) < MAIN_MAGIC_SIZE:
        size = MAIN_MAGIC_SIZE - len(said)
    else:
        size = (MAIN_KEPT if said.startswith(header()[:MAIN_MAGIC_SIZE]) else INITIAL_SIZE) - len(said)
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
