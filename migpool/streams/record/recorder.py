"""The recorder: stands between the source and the destination of one migration.

It accepts the source's connections one by one, opens one to the destination for each, in the same order, and lets
:class:`~migpool.streams.record.passage.Passage` do the rest. It ends when every connection has ended, the main channel
among them. A recording that was cut short is valid as far as it goes, and its index says why it is not complete.

Where a port can be reached, others connect too, and a destination may die of them. So nothing is opened to the
destination before a connection has begun as one of a migration does (:mod:`migpool.streams.record.doorway`). If all
that was passed on was how a migration begins, and the source's end went away first, the recorder forgets it and goes on
listening.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from migpool.core.threads import ThreadGroup
from migpool.errors import MigpoolError, PeerError, UsageError
from migpool.streams.record.beginnings import Begins
from migpool.streams.record.doorway import Doorway, Guest
from migpool.streams.record.index import MOST_CONNECTIONS, Connection, Ended, Index, Moment, Role
from migpool.streams.record.passage import TICK, Passage
from migpool.streams.record.store import Store
from migpool.transport.address import Address
from migpool.transport.listener import listen
from migpool.transport.sockets import connect, prepare
from migpool.transport.strangers import MOST, one_of_most

BACKLOG: Final = 256
GRACE: Final = 2.0
"""Seconds that a source whose first connections have all ended is given to open the main channel."""


@dataclass(frozen=True, slots=True)
class RecorderLimits:
    """How long a recorder waits, in seconds.

    Attributes:
        source: for the source's first connection.
        connect: for the destination to take one connection.
        idle: for the next byte on any connection. A source may pause a migration on purpose, so this is long.
    """

    source: float = 300.0
    connect: float = 10.0
    idle: float = 3600.0


class Recorder:
    """Records one migration.

    Arguments:
        listen: where the source will connect to.
        to: where the destination is.
        directory: for the recording; made if it is not there, and empty if it is.
        limits: how long to wait.
        exposed: listen where strangers can connect, too.
        listening: called with the address, once a source can connect; a TCP port of 0 has become a real one in it.
        opened: called when it is known what a connection is.
        warn: called with a line at once when the disk takes no more; the migration goes on.
        noted: called with a line about a connection that was none of the source's.
        stop: asked four times a second whether to end now.
    """

    def __init__(
        self,
        listen: Address,
        to: Address,
        directory: Path,
        *,
        limits: RecorderLimits | None = None,
        exposed: bool = False,
        listening: Callable[[Address], None] = lambda _: None,
        opened: Callable[[Connection], None] = lambda _: None,
        warn: Callable[[str], None] = lambda _: None,
        noted: Callable[[str], None] = lambda _: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._listen = listen
        self._to = to
        self._directory = directory
        self._exposed = exposed
        self._limits = limits or RecorderLimits()
        self._listening = listening
        self._opened = opened
        self._warn = warn
        self._noted = noted
        self._stop = stop
        self._passages: list[Passage] = []
        self._main: Passage | None = None
        self._source: Guest | None = None
        self._leaving: list[Passage] = []
        self._opened_so_far = 0
        self._lock = threading.Lock()
        self._announced: set[int] = set()
        self._reason = ""
        self._end: Moment | None = None

    def run(self) -> Index:
        """Record until every connection has ended.

        Returns:
            the index as it was written; it says whether the recording is complete, and why not.

        Raises:
            UsageError: it cannot listen there, or the directory cannot be used.
        """
        with contextlib.ExitStack() as stack:
            listener, self._bound = listen(self._listen, BACKLOG, exposed=self._exposed)
            stack.enter_context(listener)
            stack.callback(self._bound.unlink)
            self._store = Store(self._directory)
            self._begin = _now()
            self._store.write(self._index())
            self._news = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            stack.callback(os.close, self._news)
            threads = ThreadGroup()
            stack.callback(threads.close)
            stack.callback(self._cut)
            self._listening(self._bound)
            self._serve(listener, threads, stack.enter_context(contextlib.closing(Doorway(self._noted))))
            self._cut()
            threads.close()
            self._forget_strangers()
            self._end = _now()
            index = self._index()
            self._store.write(index)
            # The disk may have been too full for the index alone.
            return self._index()

    # ------------------------------------------------------------------ while it runs

    def _serve(self, listener: socket.socket, threads: ThreadGroup, doorway: Doorway) -> None:
        listener.setblocking(False)
        poll = select.poll()
        poll.register(listener, select.POLLIN)
        poll.register(self._news, select.POLLIN)
        poll.register(doorway, select.POLLIN)
        moved = (0, time.monotonic())
        warned = False
        looks = BACKLOG
        while True:
            over = self._over()
            ready = [descriptor for descriptor, _ in poll.poll(0 if over else TICK * 1000)]
            # Who came before all others had ended may not have been looked at.
            if over and not (looks and {listener.fileno(), doorway.fileno()}.intersection(ready)):
                return
            looks -= over
            if self._news in ready:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(self._news)
                self._announce()
            if listener.fileno() in ready:
                doorway.accept(listener)
            for guest in doorway.come(lambda: self._source, postcopy=self._may_be_preempted()):
                if self._belongs(guest.begins):
                    self._open(guest, threads)
                    moved = (moved[0], time.monotonic())
                else:
                    guest.sock.close()
            self._forget_strangers()
            if self._stop():
                self._reason = self._reason or "it was cancelled"
                return
            if self._store.failure and not warned:
                warned = True
                self._warn(f"{self._store.failure}: from here on nothing is recorded, and the migration goes on")
            passed = sum(passage.passed for passage in self._passages)
            if passed != moved[0]:
                moved = (passed, time.monotonic())
            elif self._too_long(time.monotonic() - moved[1]):
                return

    def _too_long(self, idle: float) -> bool:
        if not self._passages and idle > self._limits.source:
            self._reason = f"no source has come within {self._limits.source:g} s"
        elif self._passages and idle > self._limits.idle:
            self._reason = f"nothing has passed on any connection for {self._limits.idle:g} s"
        elif idle > GRACE and self._main is not None and self._main.over and self._main.ended_well:
            self._forget([one for one in self._passages if one.greeted and not one.over])  # who only stays
            return False
        elif self._over():
            return False  # the last one has ended since it was looked at, after a long silence
        elif self._passages and idle > GRACE and all(passage.over for passage in self._passages):
            self._reason = self._reason or "the source opened no main channel"
        else:
            return False
        return True

    def _over(self) -> bool:
        if not self._passages or not all(passage.over for passage in self._passages):
            return bool(self._reason) and not self._passages
        if self._all_strangers:
            return bool(self._reason)
        main = any(one.connection.role is Role.MAIN or one.tls or one.resumed for one in self._passages)
        return main or bool(self._reason)

    @property
    def _all_strangers(self) -> bool:
        """Whether nobody has said more than whoever knows how a migration begins."""
        return bool(self._passages) and all(passage.greeted for passage in self._passages)

    def _forget_strangers(self) -> None:
        """Forget connections that only began as a migration's do, once the first of them has gone; listen on."""
        main = self._main
        if self._source is not None and main is not None and not main.greeted:
            self._source.goes_on = True
        gone = all(one.left for one in self._passages) if main is None else main.left
        if gone and self._all_strangers and not self._reason:
            self._noted("what began as a migration ended before anything was moved: ignored")
            self._forget(self._passages)
        for passage in [passage for passage in self._leaving if passage.over]:
            self._leaving.remove(passage)
            passage.forget()

    def _forget(self, strangers: Sequence[Passage]) -> None:
        for passage in list(strangers):
            passage.cut()
            self._leaving.append(passage)
            with self._lock:
                self._passages.remove(passage)
        if self._main not in self._passages:
            self._main = self._source = None

    def _belongs(self, begins: Begins) -> bool:
        """Whether a connection that begins so can belong to the migration under way; it is noted if not."""
        main = self._main
        if begins is Begins.MAIN and main is not None and self._all_strangers:
            self._noted("what began as a migration did not go on, and another source came: it was closed")
            self._forget(self._passages)
        elif begins in (Begins.MAIN, Begins.TLS) and main is not None:
            self._noted("a second source came during the migration, and was turned away")
            return False
        if begins is Begins.RESUMED and self._passages and not self._may_be_preempted():
            self._noted("a connection goes on with a postcopy, and there is none: it was closed")
            return False
        if len(self._passages) == MOST_CONNECTIONS:
            self._noted(f"{MOST_CONNECTIONS} connections have been recorded: one more was closed")
            return False
        return True

    def _make_room(self) -> None:
        """Have one give way if too many are open: not the main channel, nor one that is known to belong to it."""
        uuid = self._main.uuid if self._main is not None else ""
        others = {
            passage.near: passage
            for passage in self._passages
            if not passage.ending and passage is not self._main and (not uuid or passage.uuid != uuid)
        }
        if others and sum(not passage.ending for passage in self._passages) >= MOST:
            others[one_of_most({near: passage.address for near, passage in others.items()})].cut()
            self._noted(f"{MOST} connections were open that began as a source's do: one was closed")

    def _may_be_preempted(self) -> bool:
        """Whether a connection may come on which the source says nothing until it is asked for pages."""
        return any(passage.postcopy for passage in self._passages)

    def _open(self, guest: Guest, threads: ThreadGroup) -> None:
        near, begins = guest.sock, guest.begins
        self._make_room()
        with contextlib.ExitStack() as stack:
            stack.callback(near.close)
            try:
                far = self._connect()
                stack.callback(far.close)
                for sock in (near, far):
                    sock.setblocking(True)
                    prepare(sock, limit=TICK, tick=TICK)
            except (MigpoolError, OSError) as error:
                if begins is Begins.SILENT:
                    self._noted(f"a connection on which nothing was said could not be passed on: {error}")
                else:
                    self._reason = self._reason or str(error)
                return
            stack.pop_all()
        passage = Passage(self._opened_so_far, near, far, self._store, self._wake)
        self._opened_so_far += 1
        if begins is Begins.MAIN:
            self._main, self._source = passage, guest
        with self._lock:
            self._passages.append(passage)
        passage.start(threads)

    def _connect(self) -> socket.socket:
        """One connection to the destination, in pieces between which Ctrl-C is heard."""
        deadline = time.monotonic() + self._limits.connect
        while True:
            now = time.monotonic()
            try:
                return connect(self._to, min(deadline, now + TICK), self._limits.connect, taken=self._taken())
            except UsageError:
                raise
            except PeerError:
                if self._stop():
                    raise PeerError("it was cancelled before the destination had answered") from None
                if self._passages or time.monotonic() >= deadline:
                    raise

    def _taken(self) -> str:
        """What the destination has taken already; empty if nothing."""
        if not self._passages:
            return ""
        channels = sum(passage.connection.role is Role.MULTIFD for passage in self._passages)
        return (
            f"the destination took {channels} multifd channels and no more: both ends need the same number of channels"
        )

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_write(self._news, 1)

    def _announce(self) -> None:
        for passage in self._passages:
            connection = passage.connection
            if connection.role is not Role.UNKNOWN and connection.number not in self._announced:
                self._announced.add(connection.number)
                self._opened(connection)
                self._store.write(self._index())

    def _cut(self) -> None:
        for passage in self._passages:
            passage.cut()

    # ------------------------------------------------------------------ the index

    def _index(self) -> Index:
        connections = tuple(passage.connection for passage in self._passages)
        reason = self._why_incomplete(connections)
        ends = str(self._bound), str(self._to)
        return Index(*ends, self._begin, self._end, not reason, reason, connections)

    def _why_incomplete(self, connections: tuple[Connection, ...]) -> str:
        if self._store.failure:
            return self._store.failure
        if self._reason:
            return self._reason
        if self._end is None:
            return "the recorder did not come to its end"
        for passage, one in zip(self._passages, connections, strict=True):
            if one.source.ended is not Ended.CLOSED:
                return f"{one.name}, after byte {one.source.bytes}: {passage.failure or _how(one)}"
        return ""


def _how(one: Connection) -> str:
    """How a connection ended that the source did not end."""
    if one.source.ended is Ended.BROKEN:
        return "the source was gone"
    if one.source.ended is Ended.REFUSED or one.destination.ended is Ended.BROKEN:
        return "the destination was gone"
    return "the connection was cut"


def _now() -> Moment:
    return Moment(time.monotonic_ns(), datetime.now(UTC).isoformat())
