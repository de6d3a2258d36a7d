"""Which connections are those of one source: one main channel and N multifd channels, in any order of arrival.

Each says what it is by its first bytes: the main channel by its header, of which all is kept that is read here
(``Connections.said``), a multifd channel by its initial packet, of which exactly its 64 bytes are read. How they come,
and how long they have for that: :mod:`migpool.transport.accept`.

A source is whole when a main channel has all multifd channels of one uuid: of its own, if its configuration says one,
as this project's sources do with a random number for each migration. All others are closed then.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from migpool.errors import PeerError, ProtocolError
from migpool.transport.tls import is_unread
from migpool.units import count_of
from migpool.wire.configuration import uuid_within
from migpool.wire.multifd import INITIAL_SIZE, parse_initial_packet
from migpool.wire.stream import MAIN_MAGIC_SIZE, begins_main_channel, header

TLS_HANDSHAKE: Final = b"\x16\x03"
"""What a connection begins with whose ends have agreed on TLS."""
_HEAD: Final = len(header())


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
        elif self.complete and self._own not in (None, packet.uuid):
            raise Stranger("a connection of another migration was closed: the channels of one have all come")
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
        """Close what has ended while there is no main channel with more than a header: no source is behind it.

        A fast source may have ended a channel before its main channel is heard, but then there is more on it to read.
        """
        if self.bare and not self.complete:
            for sock in [sock for sock in self._all() if _ended(sock) and not _has_more(sock)]:
                self.noted("a connection that began as a source's does was closed: ignored")
                self._forget(sock)

    def drop_alone(self) -> bool:
        """Close main channels that have ended and of which no multifd channel has come; whether there was one.

        A source that was cancelled leaves that, and so does a stranger that knows how a stream begins.
        """
        alone = []
        for sock, said in self._mains.items():
            own = uuid_within(said)
            if _ended(sock) and (not self._groups if own is None else own not in self._groups):
                alone.append(sock)
        for sock in alone if self.count and not self.complete else ():
            self.noted("a main channel was closed that ended before any multifd channel of its came: ignored")
            self._forget(sock)
        return bool(alone and self.count)

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


def _ended(sock: socket.socket) -> bool:
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
