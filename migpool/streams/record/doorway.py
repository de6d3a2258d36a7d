"""Where connections wait until it is known whether they are a source's: by their first bytes, which stay in the socket.

A connection that is closed without a byte, as health checks and port scans do, is noted and forgotten; so is one that
begins as nothing of a migration does, or says too little for one (:mod:`migpool.streams.record.beginnings`). One that
says nothing waits a while, unless the source may finish by postcopy: then it may be the preempt channel, on which a
source says nothing before the destination asks for a page, while the destination waits for the connection alone.

A multifd channel waits for its main channel, and is closed if none comes. If the main channel's configuration says a
uuid, only channels of that uuid are its own; else those from its address, and those from elsewhere if none comes from
there. So many may wait that have said what they are, and so many others: neither can push out the other, and of too
many the address that has most gives way.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from migpool.streams.record.beginnings import ENOUGH, Begins, begins
from migpool.transport.accept import HESITATION, SILENT, Notes
from migpool.transport.connections import has_ended
from migpool.transport.strangers import MOST, address_of, one_of_most
from migpool.wire.configuration import uuid_within
from migpool.wire.multifd import INITIAL_SIZE, parse_initial_packet

_ALONE: Final = 0.2
"""Seconds that a silent connection is left alone, since who only looks whether somebody listens closes it by then."""
_ELSEWHERE: Final = 2.0
"""Seconds that a channel from another address than its main channel's waits for one that comes from there."""
_SILENCE: Final = 10.0
"""Seconds that a connection may say nothing: a source without a return path says its first byte after its set-up."""
_AT_ONCE: Final = 64


@dataclass(slots=True, eq=False)
class Guest:
    """A connection that waits, or has waited.

    Attributes:
        sock: the connection.
        address: where it comes from.
        begins: what it is by what it has said.
        uuid: of a multifd channel what it said, of a main channel what its channels must say; empty: any.
        joined: of a main channel, whether a multifd channel has come from its address.
        goes_on: of a main channel, whether it has said more than a greeting.
    """

    sock: socket.socket
    address: str
    begins: Begins = Begins.SILENT
    uuid: bytes = b""
    joined: bool = False
    goes_on: bool = False
    since: float = field(default_factory=time.monotonic)

    @property
    def age(self) -> float:
        """Seconds since it came, or began to speak."""
        return time.monotonic() - self.since

    @property
    def limit(self) -> float:
        """Seconds that it may stay as it is."""
        return HESITATION if self.begins is Begins.PARTLY else _SILENCE

    def hear(self, first: bytes) -> None:
        """Take what it has said so far."""
        now = begins(first)
        if self.begins is Begins.SILENT or (now is not self.begins and now is not None):
            self.since = time.monotonic()
        if now is not None:
            self.begins = now
        if now is Begins.MULTIFD:
            self.uuid = parse_initial_packet(first).uuid
        elif now is Begins.MAIN:
            self.uuid = uuid_within(first) or b""


class Doorway:
    """The connections that wait; a pollable, ready when one of them has something to tell.

    Arguments:
        noted: called with a line about a connection that was closed.
    """

    def __init__(self, noted: Callable[[str], None]) -> None:
        self._noted = Notes(noted)
        # Edge by edge: what has been said stays in the sockets, and would make them ready all the time.
        self._epoll = select.epoll()
        self._guests: dict[int, Guest] = {}

    def fileno(self) -> int:
        """What to wait for."""
        return self._epoll.fileno()

    def close(self) -> None:
        """Close all that still wait."""
        self._epoll.close()
        for guest in self._guests.values():
            guest.sock.close()

    def accept(self, listener: socket.socket) -> None:
        """Let those in that have come; they may have gone again since."""
        for _ in range(_AT_ONCE):
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            sock.setblocking(False)
            self._guests[sock.fileno()] = Guest(sock, address_of(sock))
            self._epoll.register(sock, select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET)
            self._keep_within(waiting=False)

    def come(self, main: Callable[[], Guest | None], *, postcopy: bool) -> Iterator[Guest]:
        """Those of which it is known now what they are, main channels first; the caller owns their sockets.

        Arguments:
            main: the main channel under way; ``None`` if there is none.
            postcopy: whether the source may have a preempt channel.
        """
        for descriptor, _ in self._epoll.poll(0):
            if descriptor in self._guests:
                self._hear(self._guests[descriptor], postcopy)
        for guest in sorted(self._guests.values(), key=lambda guest: guest.begins is not Begins.MAIN):
            earlier = main() if guest.begins is Begins.MAIN else None
            if earlier is not None and not earlier.goes_on and guest.age < guest.limit:
                continue  # the other may have been no source
            if guest.begins in (Begins.MAIN, Begins.TLS, Begins.RESUMED) or (
                guest.begins is Begins.SILENT and postcopy and guest.age > _ALONE
            ):
                self._let_go(guest)
                yield guest
            elif guest.begins is Begins.MULTIFD:
                yield from self._joined(guest, main())
            elif guest.age > guest.limit:
                self._turn_away(guest, f"a connection did not say within {guest.limit:g} s what it is")

    def _joined(self, guest: Guest, main: Guest | None) -> Iterator[Guest]:
        """A multifd channel, if it is its main channel's."""
        if main is not None and main.uuid:
            own, other = guest.uuid == main.uuid, guest.uuid != main.uuid
        elif main is not None:
            near = guest.address == main.address
            own, other = near or (not main.joined and guest.age > _ELSEWHERE), main.joined
            main.joined |= near
        else:
            own = other = False
        if own:
            self._let_go(guest)
            yield guest
        elif other:
            self._turn_away(guest, "a channel came that is of another migration than the one under way")
        elif has_ended(guest.sock) and len(_said(guest.sock)) <= INITIAL_SIZE:
            self._turn_away(guest, "a channel ended before a main channel had come")
        elif guest.age > guest.limit:
            self._turn_away(guest, f"a channel came, and no main channel within {guest.limit:g} s")

    def _hear(self, guest: Guest, postcopy: bool) -> None:
        """See what it has said; it is closed, and that is noted, if it is not a source's."""
        first = _said(guest.sock)
        if not first:
            self._noted(SILENT)
        elif begins(first) is None and not postcopy:
            self._noted(f"a connection that begins with {first[:8].hex()} is no migration's, and was closed")
        else:
            guest.hear(first)
            self._keep_within(waiting=True)
            return
        self._let_go(guest)
        guest.sock.close()

    def _keep_within(self, *, waiting: bool) -> None:
        """Have one give way, if there are too many that wait for a main channel, or for a word."""
        alike = {
            guest.sock: guest.address for guest in self._guests.values() if (guest.begins is Begins.MULTIFD) == waiting
        }
        if len(alike) > MOST:
            what = "whose main channel had not come" if waiting else "that had not said what they are"
            self._turn_away(self._guests[one_of_most(alike).fileno()], f"{MOST} connections waited {what}")

    def _turn_away(self, guest: Guest, why: str) -> None:
        self._noted(f"{why}: it was closed")
        self._let_go(guest)
        guest.sock.close()

    def _let_go(self, guest: Guest) -> None:
        self._epoll.unregister(guest.sock)
        del self._guests[guest.sock.fileno()]


def _said(sock: socket.socket) -> bytes:
    """The first bytes of what a connection has said, which stay there; none if it has gone."""
    with contextlib.suppress(OSError):
        return sock.recv(ENOUGH, socket.MSG_PEEK)
    return b""
