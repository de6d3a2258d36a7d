"""Which connections are those of one source: one main channel and N multifd channels, in any order of arrival.

Each says what it is by its first bytes: the main channel by its header, of which all is kept that is read here
(``Connections.said``), a multifd channel by its initial packet, of which exactly its 64 bytes are read. How they come,
and how long they have for that: :mod:`migpool.transport.accept`.

A source is whole when a main channel has all multifd channels of one uuid: of its own, if its configuration says one,
as this project's sources do with a random number for each migration; else those that have come from its own address, of
whatever uuid. All others are closed then. So nobody who does not know the number can be taken for a part of it, nor
take a place from it.

What others have begun takes room: at most :data:`~migpool.transport.strangers.MOST` connections are kept, and each for
a time. Of too many the address that has most gives way with its oldest.
"""

from __future__ import annotations

import math
import select
import socket
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Final

from migpool.errors import MigpoolError, PeerError, PeerGone, ProtocolError, TimeLimitExceeded
from migpool.transport.strangers import MOST, Stranger, address_of, one_of_most
from migpool.transport.tls import is_unread
from migpool.units import count_of
from migpool.wire.configuration import is_whole, uuid_within
from migpool.wire.multifd import INITIAL_SIZE, parse_initial_packet
from migpool.wire.stream import MAIN_MAGIC_SIZE, TLS_HANDSHAKE, begins_main_channel, header

MAIN_KEPT: Final = 4096
"""Bytes of a main channel that are read before its source is whole: enough for a configuration."""
GONE: Final = 1.0
"""Seconds in which all connections of a source must have come that has ended one of them."""
_HEAD: Final = len(header())


@dataclass(slots=True)
class _Kept:
    """A connection that has said what it is.

    Attributes:
        address: see :func:`address_of`.
        until: when its source must be whole, by CLOCK_MONOTONIC in seconds.
        hastened: its source has ended a connection, and so will open no more.
    """

    address: str
    until: float
    hastened: bool = False


@dataclass(slots=True)
class Connections:
    """What a source has opened.

    Arguments:
        count: how many multifd channels there must be.
        remedy: what else to say of another number of them.
        noted: told, in a line, of a connection that is none of the source's.
        limit: seconds in which all of a source's must have come after one of them.

    Attributes:
        main: the main channel, once one has come; the last one that has.
        uuid: what each multifd channel said of its machine or migration; zeros if it has none, or there is no channel.
        complete: whether all of the source has come.
    """

    count: int
    remedy: str = ""
    noted: Callable[[str], object] = lambda _: None
    limit: float = math.inf
    main: socket.socket | None = None
    uuid: bytes = bytes(16)
    complete: bool = False
    _mains: dict[socket.socket, bytes] = field(default_factory=dict)
    _groups: dict[bytes, dict[int, socket.socket]] = field(default_factory=dict)
    _kept: dict[socket.socket, _Kept] = field(default_factory=dict)

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
        most = max(self._group, default=-1) + 1 if self.main is not None else 0
        return most if most > self.count else 0

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
            if main and (len(first) >= MAIN_KEPT or is_whole(first[_HEAD:])):
                if sock not in self._mains:
                    self._refuse_late("main channel")
                self._mains[sock] = first
                self.main = sock
                self._keep(sock)
                return True
            if main is not False or len(first) < INITIAL_SIZE:
                return False
            packet = parse_initial_packet(first)
        except ProtocolError as error:
            raise Stranger(f"a connection that is no migration's was closed: {foreign(first) or error}") from None
        if packet.channel < self.count:
            self._refuse_late(f"multifd channel {packet.channel}")
        elif self.complete and not self._is_ours(sock, packet.uuid):
            raise Stranger("a connection of another migration was closed: the channels of one have all come")
        group = self._groups.setdefault(packet.uuid, {})
        if earlier := group.get(packet.channel):
            self.noted(f"a second connection says that it is multifd channel {packet.channel}: the first one is closed")
            del self._kept[earlier]
            earlier.close()
        group[packet.channel] = sock
        self._keep(sock)
        return True

    def _keep(self, sock: socket.socket) -> None:
        self._kept[sock] = _Kept(address_of(sock), time.monotonic() + self.limit)
        self._choose()
        if not self.complete and len(self._kept) > MOST:
            self._forget(one_of_most({kept: one.address for kept, one in self._kept.items()}))

    def _is_ours(self, sock: socket.socket, uuid: bytes) -> bool:
        """Whether a channel too many is of the migration under way."""
        own = uuid_within(self.said)
        if own is None and address_of(sock) != self._kept[self.main_channel].address:
            return False
        return uuid == self.uuid or (own is None and not self.count)

    def _refuse_late(self, what: str) -> None:
        if self.complete:
            raise Stranger(f"a connection was closed that says it is the {what}, which the migration under way has")

    def _choose(self, late: Collection[socket.socket] = ()) -> None:
        """See whether a main channel and multifd channels belong together: by their number, else the last that came.

        Arguments:
            late: main channels that are taken, without a uuid, together with channels from other addresses.
        """
        if self.complete:
            return
        latest = list(reversed(self._mains))
        for sock in sorted(latest, key=lambda main: uuid_within(self._mains[main]) is None):
            own = uuid_within(self._mains[sock])
            for uuid in reversed(self._groups) if self.count else (own or bytes(16),):
                group = self._groups.get(uuid, {})
                found = [group[number] for number in range(self.count) if number in group]
                if len(found) < self.count or own not in (None, uuid):
                    continue
                if own is None and sock not in late and any(not self._together(sock, one) for one in found):
                    continue
                self.main, self.uuid, self.complete = sock, uuid, True
                self._close_others()
                return

    def _together(self, sock: socket.socket, other: socket.socket) -> bool:
        return self._kept[sock].address == self._kept[other].address

    def _close_others(self) -> None:
        ours = {self.main, *self._group.values()}
        for sock in [sock for sock in self._all() if sock not in ours]:
            self.noted("a connection of another migration was closed: the channels of one have all come")
            self._forget(sock)

    def drop_ended(self) -> None:
        """Close what has ended while there is no main channel: no source is behind it.

        A fast source may have ended a channel before its main channel is heard, but then there is more on it to read.
        """
        if not self._mains and not self.complete:
            for sock in [sock for sock in self._all() if has_ended(sock) and not _has_more(sock)]:
                self.drop(sock, "a connection that began as a source's does was closed: ignored")

    def late(self) -> list[socket.socket]:
        """Those whose source should be whole by now, main channels first."""
        now = time.monotonic()
        for main in self._mains:
            ours = (main, *self._group_of(main).values())
            if any(map(has_ended, ours)):  # it has opened them all, or will open no more
                for kept in map(self._kept.__getitem__, ours):
                    kept.until, kept.hastened = min(kept.until, now + GONE), True
        found = [sock for sock in (*self._mains, *self._all()) if now >= self._kept[sock].until]
        if found:
            self._choose(found)
        return [] if self.complete else list(dict.fromkeys(found))

    def fault(self, main: socket.socket, unclear: int) -> MigpoolError | None:
        """What is wrong with a source that is not whole in its time; ``None`` if it is none at all.

        One is no source whose main channel has ended before a multifd channel of its came: one that was cancelled
        leaves that, and so does a stranger that knows how a stream begins.

        Arguments:
            main: its main channel.
            unclear: how many connections have not said what they are.
        """
        self.main = main
        if self.most:
            return self.too_many()
        if self._kept[main].hastened:
            return PeerGone(self.given_up()) if self._group_of(main) or not self.count else None
        return TimeLimitExceeded(self.missing(unclear, self.limit))

    def give(self, main: socket.socket, seconds: float) -> None:
        """Give a source that is not whole so many seconds from now on."""
        for sock in (main, *self._group_of(main).values()):
            self._kept[sock].until = time.monotonic() + seconds

    def is_main(self, sock: socket.socket) -> bool:
        """Whether a connection that is kept is a main channel."""
        return sock in self._mains

    @property
    def mains(self) -> int:
        """How many main channels have come, and are kept."""
        return len(self._mains)

    def drop(self, sock: socket.socket, why: str) -> None:
        """Close a connection, and all multifd channels of its if it is a main channel that says which they are."""
        self.noted(why)
        own = uuid_within(self._mains.get(sock, b""))
        for one in (sock, *self._groups.get(own or b"", {}).values()):
            self._forget(one)

    def _forget(self, sock: socket.socket) -> None:
        sock.close()
        self._kept.pop(sock, None)
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
    def _group(self) -> dict[int, socket.socket]:
        """The channels of the source, or of the one whose main channel has come last."""
        if self.complete:
            return self._groups.get(self.uuid, {}) if self.count else max(self._groups.values(), key=len, default={})
        return {} if self.main is None else self._group_of(self.main)

    def _group_of(self, main: socket.socket) -> dict[int, socket.socket]:
        """The channels of a main channel's own uuid; without one, of the uuid that has most from its address."""
        own = uuid_within(self._mains[main])
        if own is not None:
            return self._groups.get(own, {})
        groups = (g for g in self._groups.values() if all(self._together(main, one) for one in g.values()))
        return max(groups, key=len, default={})

    def too_many(self) -> PeerError:
        """The error for a source that has shown more multifd channels than there must be."""
        told = took(self.count, self.most)
        return PeerError(f"{told}; {self.remedy}" if self.remedy else told)

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
        unknown = count_of(unclear, "connection")
        return (
            f"the source opened {len(self.channels)} of {self.count} multifd channels and "
            f"{'no' if self.main is None else 'the'} main channel within {limit:g} s"
            f"{f', and {unknown} that did not say what for' if unclear else ''}: "
            f"{self.remedy or 'both ends need the same number of channels'}"
        )


def has_ended(sock: socket.socket) -> bool:
    """Whether the other end will say no more on a connection than it has."""
    watch = select.poll()
    watch.register(sock, select.POLLRDHUP)
    return bool(watch.poll(0))


def _has_more(sock: socket.socket) -> bool:
    """Whether anything is left to read of a connection that has ended."""
    if is_unread(sock):
        return True
    try:
        return bool(socket.socket.recv(sock, 1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except OSError:
        return False


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
