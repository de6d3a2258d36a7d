"""Be the destination of a migration, and store the machine instead of running it.

One thread serves all connections. What a real destination guarantees by threads that wait is here a barrier::

    main channel        ... MULTIFD_FLUSH |  each is read no further until
    multifd channel i   ... SYNC          |  all of them have come to this point

so that a page that is sent again after a flush is also written again after it. Answers on the return path: PONG to
each PING; SWITCHOVER_ACK where the source waits for one, as there is nothing to prepare; SHUT 0 only when the file is
on the disk, for from then on the machine is here and nowhere else; SHUT 1 if it cannot be stored: then it runs on at
the source.
"""

from __future__ import annotations

import contextlib
import selectors
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import inf
from pathlib import Path
from typing import Final

from migpool.errors import Cancelled, MigpoolError, PeerError, PeerGone, ProtocolError, TimeLimitExceeded
from migpool.streams.file.file import StreamFile
from migpool.streams.file.storedchannels import StoredMainChannel, StoredMultifdChannel
from migpool.streams.file.storeddevices import StoredDevices
from migpool.transport.accept import BACKLOG, TICK, Arrivals, accept_all
from migpool.transport.address import Address
from migpool.transport.connections import Connections
from migpool.transport.credentials import Credentials
from migpool.transport.listener import listen
from migpool.transport.sockets import prepare, send_all
from migpool.transport.tls import is_unread
from migpool.wire.returnpath import Message, Shut, encode

_PIECE: Final = 1 << 18
_WALKED_AT_MOST: Final = 256 << 20
"""Bytes behind the end of RAM that are walked before the source is told that all is well. There are more only if a
device is sent before RAM, and RAM is among them."""
_REMEDY: Final = "give --channels as the source has"


_SILENCE: Final = 10.0
"""Seconds that a connection may say nothing: a source without a return path says its first byte after its set-up."""
_UNHEARD: Final = (
    "the file is whole, but the source ended the connection before it was told so, and its machine may run on there: "
    "see there before you load the file"
)


@dataclass(frozen=True, slots=True)
class Stored:
    """A machine that has become a file.

    Arguments:
        machine: its type, as the source resolved it.
        size: bytes of the file.
        pages: how many pages came, those of zeros included; a page counts each time that it was sent.
        acknowledged: whether the source was told on a return path that the machine is here.
    """

    machine: str
    size: int
    pages: int
    acknowledged: bool


def receive_file(
    path: Path,
    address: Address,
    channels: int,
    *,
    limit: float,
    cancelled: Callable[[], bool],
    listening: Callable[[Address], None],
    credentials: Credentials | None = None,
    insecure: bool = False,
    acknowledge: bool | None = None,
    noted: Callable[[str], object] = lambda _: None,
) -> Stored:
    """Receive one migration into a file.

    Arguments:
        path: the file; nothing may have that name yet.
        address: where to listen.
        channels: how many multifd channels the source has; 0 without multifd.
        limit: how long the source may say nothing, in seconds; its first connection is waited for until cancelled.
        cancelled: called several times a second; True ends the migration, and the machine stays at the source.
        listening: told the address, with the port that the system chose.
        credentials: this end's, if the connections are to be encrypted.
        insecure: listen where strangers can connect, and take whoever does.
        acknowledge: whether to say SWITCHOVER_ACK unasked, as sources up to QEMU 11.0 may wait for and later ones fail
            of; None: as the version in the machine's type says, and without one not.
        noted: told, in a line, what is worth knowing and ends nothing.

    Raises:
        UsageError: the file or the address cannot be had.
        ProtocolError: what came is no stream, or not one that can be stored.
        PeerError: the source went away before the end, or before it was told that the machine is here.
        TimeLimitExceeded: the source said nothing more.
        Cancelled: ``cancelled`` said so.
    """
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(StreamFile(path))
        listener, actual = listen(address, BACKLOG, exposed=insecure or credentials is not None)
        door = stack.enter_context(contextlib.ExitStack())
        door.enter_context(listener)
        door.callback(actual.unlink)
        listening(actual)

        def check() -> None:
            if cancelled():
                raise Cancelled("cancelled before the migration began")

        connections = Connections(channels, _REMEDY, noted)
        arrivals = accept_all(
            listener,
            connections,
            first_limit=inf,
            limit=limit,
            prepare=partial(prepare, limit=limit, tick=TICK),
            check=check,
            stack=stack,
            credentials=credentials,
            anybody=insecure,
            silence=min(limit, _SILENCE),
        )
        session = _Session(arrivals, connections, file, limit, acknowledge, door)
        stack.enter_context(contextlib.closing(session))
        try:
            session.run(cancelled)
            session.finish()
            file.keep()
        except MigpoolError:
            session.refuse()
            raise
        session.confirm(cancelled)
        return Stored(session.main.machine, file.size, session.pages, session.main.return_path)


class _Session:
    """The connections of one migration, and the loop that serves them."""

    def __init__(
        self,
        arrivals: Arrivals,
        arrived: Connections,
        file: StreamFile,
        limit: float,
        acknowledge: bool | None,
        door: contextlib.ExitStack,
    ) -> None:
        self._door = door
        self._limit = limit
        self._file = file
        self._arrivals = arrivals
        self._begin = arrived.said
        self._rest: bytes | None = None
        self._walked = True
        self._noted = arrived.noted
        self.main = StoredMainChannel(
            arrived.main_channel,
            file,
            arrived.uuid,
            bool(arrived.channels),
            self._answer,
            StoredDevices(file.path.absolute().parent),
            acknowledge=acknowledge,
            unversioned=self._note_unversioned,
        )
        self._channels = [
            StoredMultifdChannel(number, sock, file, self.main) for number, sock in enumerate(arrived.channels)
        ]
        self._selector = selectors.DefaultSelector()
        self._selector.register(arrivals, selectors.EVENT_READ, partial(arrivals.take, 0))
        self._reading_channels = False

    def close(self) -> None:
        """Stop watching the connections, and let go what waits for them."""
        self._selector.close()
        self.main.devices.close()

    @property
    def pages(self) -> int:
        """How many pages came on all channels."""
        return self.main.pages + sum(channel.pages for channel in self._channels)

    def run(self, cancelled: Callable[[], bool]) -> None:
        """Serve the connections until the stream is whole."""
        self.main.feed(self._begin)  # it was read when the connection said what it is
        self._watch(self.main)
        self._pass_barriers()
        heard = time.monotonic()
        while not self._over():
            if cancelled():
                raise Cancelled("cancelled: no file is kept, and the machine stays at the source")
            ready = self._selector.select(TICK)
            if ready:
                heard = time.monotonic()
            elif time.monotonic() - heard > self._limit:
                raise TimeLimitExceeded(self._silence())
            for key, _ in ready:
                if key.fileobj is not self._arrivals or not self._reading_channels:
                    key.data()
            self._pass_barriers()

    def _over(self) -> bool:
        """Whether all has come: the main channel to its end, and the state of devices on the others."""
        if not self.main.closed and not self.main.described:
            return False
        if self._rest is None:
            begin, end = self.main.rest_begin, self._file.size
            self._walked = bool(self._channels) or end - begin <= _WALKED_AT_MOST
            self._rest = self._file.read(begin, end - begin) if self._walked else b""
            self.main.devices.expect(self._rest)
        missing = self.main.devices.missing
        if missing and all(channel.closed for channel in self._channels):
            raise PeerError(f"the source closed the multifd channels too early: {missing}")
        return not missing

    def finish(self) -> None:
        """Give the file what must be written last.

        Raises:
            ProtocolError: the stream is damaged.
        """
        assert self._rest is not None
        for channel in self._channels:
            if not channel.syncs == self.main.barriers > 0:
                right = f"a SYNC for each of the main channel's {self.main.barriers} flushes, found {channel.syncs}"
                raise ProtocolError(0, f"multifd channel {channel.number}", right)
            channel.check()
        if self._walked:
            self.main.check_devices(self._rest)
        else:
            size = (self._file.size - self.main.rest_begin) >> 20
            self._noted(
                f"{size} MiB, from a device on that is sent before RAM, are stored as they came: walk them later"
            )
        self.main.devices.convert(self._file, self._rest, self.main.rest_begin)

    def refuse(self) -> None:
        """Tell the source, if it listens, that the machine is not here; it will go on there."""
        if self.main.return_path:
            with contextlib.suppress(MigpoolError):
                self._answer(Shut(1))

    def confirm(self, cancelled: Callable[[], bool]) -> None:
        """Tell the source, if it listens, that the machine is here, and leave it time to close the connections.

        Raises:
            PeerError: it had gone before it could hear that, so the machine may run on there.
        """
        main = self.main
        if main.return_path:
            try:
                self._answer(Shut(0))
            except MigpoolError as error:
                raise PeerError(f"{_UNHEARD}: {error}") from None
        deadline = time.monotonic() + self._limit
        ended = main.closed and not main.return_path
        while not ended and not cancelled() and time.monotonic() < deadline:
            try:
                ended = not main.socket.recv(_PIECE)
            except BlockingIOError:
                continue
            except ConnectionResetError:
                if main.return_path:
                    raise PeerError(f"{_UNHEARD}: the connection was reset") from None
                return
            except (OSError, PeerGone):
                return

    def _answer(self, message: Message) -> None:
        send_all(self.main.socket, [encode(message)], "return path")

    def _note_unversioned(self, machine: str) -> None:
        self._noted(
            f"machine {machine} has no version of QEMU in its name: no switchover is acknowledged; if the source has "
            "the capability switchover-ack and comes to no end, cancel it and give --switchover-ack yes"
        )

    def _watch(self, channel: StoredMainChannel | StoredMultifdChannel) -> None:
        self._selector.register(channel.socket, selectors.EVENT_READ, partial(self._read, channel))
        self._fed(channel, ended=False)
        if not channel.stopped and is_unread(channel.socket):
            self._read(channel)

    def _read(self, channel: StoredMainChannel | StoredMultifdChannel) -> None:
        try:
            data = channel.socket.recv(_PIECE)
        except BlockingIOError:
            return
        except OSError as error:
            raise PeerError(f"a connection of the source broke ({error.strerror or error})") from None
        if data:
            channel.feed(data)
        else:
            channel.end()
        self._fed(channel, ended=not data)

    def _fed(self, channel: StoredMainChannel | StoredMultifdChannel, *, ended: bool) -> None:
        if channel.stopped or ended:
            self._selector.unregister(channel.socket)
        if self.main.ram is not None and not self._reading_channels:
            self._reading_channels = True  # the list of blocks has come, for which all others wait
            self._close_door()
            for other in self._channels:
                self._watch(other)

    def _close_door(self) -> None:
        """A source that sends the list of blocks has opened all its connections."""
        self._selector.unregister(self._arrivals)
        self._arrivals.take_pending()
        self._arrivals.close()
        self._door.close()

    def _pass_barriers(self) -> None:
        while self._all_are_at_the_barrier():
            # The main channel first: behind the last flush of all it says that RAM is over, and then no page may come.
            every: list[StoredMainChannel | StoredMultifdChannel] = [self.main, *self._channels]
            for channel in every:
                channel.go_on()
                if not channel.stopped:
                    self._watch(channel)

    def _all_are_at_the_barrier(self) -> bool:
        if not self.main.stopped:
            return False
        waiting = [channel for channel in self._channels if not channel.stopped]
        for channel in waiting:
            if channel.closed:
                raise PeerError(f"the source closed multifd channel {channel.number} before the end of RAM")
        return not waiting

    def _silence(self) -> str:
        if self._rest is not None:
            return f"{self.main.devices.missing}; the source has sent nothing for {self._limit:g} s"
        if self.main.stopped:
            waiting = [str(channel.number) for channel in self._channels if not channel.stopped]
            return f"multifd channels {', '.join(waiting)} have not come to the flush within {self._limit:g} s"
        if self.main.ram_is_over:
            return (
                f"the source has sent nothing for {self._limit:g} s, and what came does not end with a description of "
                "the machine: whether that is all cannot be told. Migrate without return-path, or not suppress-vmdesc"
            )
        return f"the source has sent nothing for {self._limit:g} s"
