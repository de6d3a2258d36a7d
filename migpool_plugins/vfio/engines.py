"""A device with engines, on the device process's side: its state comes as parts with tags, several at once.

A part's tag is where in the state it begins, in pages of ``PAGE`` bytes; so parts may be cut as the reader's buffer and
the profile's ``chunk`` allow, and each says by itself where it belongs. Each engine works at the profile's pace; there
are as many as the profile says, whoever asks.

Over vfio-user a part travels in messages of our own (``vfiouser/message.py``). Otherwise each engine has a descriptor,
an AF_UNIX stream socket, on which every request is answered before the next one::

    request   ASK: what, tag, bytes                   READ: how much room there is. WRITE: the part's, which follows
    answer    ANSWER: kind, tag, bytes                kind 0: of the part, which follows (0 bytes: none is left), or
                                                      taken and checked; otherwise why not, whose text follows
"""

from __future__ import annotations

import contextlib
import queue
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from errno import EINVAL
from functools import partial
from typing import Final

from migpool_plugins.vfio.profiles import PAGE
from migpool_plugins.vfio.transfer import (
    READ_ALLOWANCE,
    WRITE_ALLOWANCE,
    Emulated,
    Load,
    Pacer,
    Refusal,
    Save,
    drain,
    receive,
)
from migpool_plugins.vfio.transferkinds import ACK_KINDS

ASK: Final = struct.Struct("=III")
ANSWER: Final = struct.Struct("=III")
READ: Final = 1
WRITE: Final = 2


class _Engine:
    """What one engine does after the other.

    Attributes:
        free: when what it did last was handed over, CLOCK_MONOTONIC in seconds.
    """

    def __init__(self, pacer: Pacer) -> None:
        self.pacer = pacer
        self.free = pacer.due = time.monotonic()


class _Engines:
    """A device's engines. The one that worked last works next: others idle as long as nobody needs them."""

    def __init__(self, count: int, pacer: Callable[[], Pacer]) -> None:
        self._idle: queue.LifoQueue[_Engine] = queue.LifoQueue()
        for _ in range(count):
            self._idle.put(_Engine(pacer()))

    @contextlib.contextmanager
    def one(self) -> Iterator[_Engine]:
        """An engine, for as long as it works and hands over."""
        engine = self._idle.get()
        try:
            yield engine
        finally:
            engine.free = time.monotonic()
            self._idle.put(engine)


class PartsSave(Save):
    """The device gives its state in parts, to several callers at once."""

    def __init__(self, device: Emulated) -> None:
        super().__init__(device)
        self._lock = threading.Lock()
        self._next = 0
        self._engines = _Engines(device.profile.engines, self._new_pacer)

    def begin(self) -> None:
        self._engines = _Engines(self._profile.engines, self._new_pacer)

    @contextlib.contextmanager
    def part(self, room: int) -> Iterator[tuple[int, memoryview]]:
        """The next part that nobody has been given: its tag and its bytes, none at the end; handed over meanwhile.

        Raises:
            Refusal: the room (in bytes) is too small, the device failed, now or before, or the transfer has ended.
        """
        with self._engines.one() as engine:
            yield self._made(engine, room)

    def _made(self, engine: _Engine, room: int) -> tuple[int, memoryview]:
        if room < PAGE:
            raise Refusal(f"there is room for {room} bytes, and a part takes {PAGE} at least", errno=EINVAL)
        with self._lock:
            if self.error is not None:
                raise self.error
            begin = self._next
            length = min(room // PAGE * PAGE, self._profile.chunk, self._profile.size - begin)
            self._next += length
            fault = self._fault_in(begin, length)
        if length:
            engine.pacer.work(length, max(engine.pacer.due, engine.free - READ_ALLOWANCE))
        failed = None if fault is None else self._happen(fault)
        with self._lock:
            self.error = self.error or failed
            if self._cancelled.is_set():
                raise Refusal("the transfer has ended")
            if self.error is not None:
                raise self.error
            # Before it is handed over: who has it may ask for the config at once.
            self.offset += length
        return begin // PAGE, self._content.memory.view[begin : begin + length]


class PartsLoad(Load):
    """The device takes its state in parts, from several callers at once and in any order, and checks each."""

    def __init__(self, device: Emulated) -> None:
        super().__init__(device)
        self._lock = threading.Lock()
        self._came = bytearray(-(-device.profile.size // PAGE))
        self._engines = _Engines(device.profile.engines, self._new_pacer)

    def write(self, tag: int, length: int, fill: Callable[[memoryview], bool]) -> bool:
        """Take and check one part.

        Arguments:
            tag: where it begins, in pages.
            length: its bytes.
            fill: fills a view with the next bytes of it; false if they do not come.

        Returns:
            False if it did not come whole.

        Raises:
            Refusal: it cannot be, is not what was saved, or the device failed, now or before; all of it was received.
        """
        with self._engines.one() as engine:
            late = min(max(0.0, engine.free - engine.pacer.due), WRITE_ALLOWANCE)
            since, begin = time.monotonic() - late, tag * PAGE
            with self._lock:
                self.error = error = self.error or self._misplaced(begin, length)
                if error is None:
                    pages = -(-length // PAGE)
                    self._came[tag : tag + pages] = b"\1" * pages
                fault = self._fault_in(begin, length) if error is None else None
            if error is not None:
                if drain(length, fill):
                    raise error
                return False
            view = self.received.view[begin : begin + length]
            if not fill(view):
                return False
            wrong = self._content.first_difference(self.received, begin, length)
            engine.pacer.work(length, since)
            if fault is not None:
                error = self._happen(fault)
            elif wrong is not None:
                error = Refusal(self._describe(wrong, view, begin), "verification")
            with self._lock:
                self.error = self.error or error
                if self._cancelled.is_set():
                    raise Refusal("the transfer has ended")
                if self.error is not None:
                    raise self.error
                self.offset += length
        return True

    def _misplaced(self, begin: int, length: int) -> Refusal | None:
        """Why a part cannot be, if it cannot. Called with the lock held."""
        if not length:
            return Refusal(f"the part at byte {begin} has no bytes", "verification", EINVAL)
        if begin + length > self._profile.size:
            text = f"{length} bytes came at byte {begin}, but the state ends at byte {self._profile.size}"
            return Refusal(text, "verification", EINVAL)
        if any(self._came[begin // PAGE : -(-(begin + length) // PAGE)]):
            return Refusal(f"the part at byte {begin} has come before", "verification", EINVAL)
        return None


def serve_engine(connection: socket.socket, saving: Callable[[], PartsSave], loading: Callable[[], PartsLoad]) -> None:
    """Answer the requests of one engine's descriptor, until it ends.

    Arguments:
        saving, loading: give the save, or load, in progress; they raise :class:`Refusal` if there is none.
    """
    fill = partial(receive, connection)
    head = memoryview(bytearray(ASK.size))
    with connection, contextlib.suppress(OSError):
        while fill(head):
            what, tag, length = ASK.unpack(head)
            left = length if what == WRITE else 0
            try:
                if what == READ:
                    with saving().part(length) as (tag, view):
                        _send(connection, ANSWER.pack(0, tag, len(view)), view)
                    continue
                device = loading()
                left = 0  # It takes all of it, or the connection is over.
                if not device.write(tag, length, fill):
                    return
                connection.sendall(ANSWER.pack(0, tag, 0))
            except Refusal as refusal:
                if not drain(left, fill):
                    return
                text = refusal.text.encode()
                connection.sendall(ANSWER.pack(ACK_KINDS.index(refusal.kind), tag, len(text)) + text)


def _send(connection: socket.socket, head: bytes, view: memoryview) -> None:
    sent = connection.sendmsg((head, view))
    if sent < len(head) + len(view):
        connection.sendall(head[sent:])
        connection.sendall(view[max(0, sent - len(head)) :])
