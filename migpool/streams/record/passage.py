"""One recorded connection: what one side sends goes to the other and to the store, in both directions at once.

Guarantees:

1. A byte is passed on before it is recorded, and is never held back to be understood.
2. Ends are passed on as they come: an end of one direction leaves the other open; a side that went away without an end
   (a reset) is shown to the other as a reset, after everything that it had sent.
3. ``over`` is called once, when both directions have ended and both sockets are closed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import struct
import termios
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final, TypeVar

from migpool.core.threads import ThreadGroup
from migpool.errors import ProtocolError
from migpool.streams.record.beginnings import is_greeting
from migpool.streams.record.index import Connection, Ended, Flow, Role
from migpool.streams.record.store import FlowFile, Store
from migpool.streams.record.tee_pipe import TeePipe
from migpool.transport.sockets import shut
from migpool.transport.strangers import address_of
from migpool.wire.commands import Command, CommandKind, command
from migpool.wire.configuration import uuid_within
from migpool.wire.multifd import INITIAL_SIZE, parse_initial_packet
from migpool.wire.stream import MAIN_MAGIC_SIZE, POSTCOPY_RESUMED, TLS_HANDSHAKE, begins_main_channel

TICK: Final = 0.25
"""Seconds after which a wait on a socket looks whether it should go on."""
DELIVERY: Final = 2.0
"""Seconds that a side is given to take what was sent to it, before it is shown the other side's reset."""
SMALL: Final = 1 << 16
_WAITED: Final = (errno.EAGAIN, errno.EINTR)
_COMMANDS_WITHIN: Final = 4096
_ADVISE: Final = command(Command(CommandKind.POSTCOPY_ADVISE))[:3]
T = TypeVar("T")


class _Stopped(Exception):
    """The recorder ends, or the other direction found the connection broken."""


class _OriginGone(Exception):
    """Who sends has gone without an end."""


class _TargetGone(Exception):
    """Who should receive has gone."""


class Passage:
    """One connection.

    Arguments:
        number: in the order in which the source opened them.
        near: the source's end.
        far: the destination's end. Both have a send and a receive limit of about ``TICK``; the passage owns them.
        store: takes what passes.
        changed: called when the role is known, and when all is over.

    Attributes:
        near: the source's end.
        address: where it comes from.
        failure: why it could not be passed on, in a few words; empty if it could.
    """

    def __init__(
        self, number: int, near: socket.socket, far: socket.socket, store: Store, changed: Callable[[], None]
    ) -> None:
        self.near = near
        self.address = address_of(near)
        self._far = far
        self._changed = changed
        self._source = FlowFile(store, number, "source")
        self._destination = FlowFile(store, number, "destination")
        self._head = bytearray()
        self._known = Connection(number, Role.UNKNOWN, None, "", time.monotonic_ns(), None, Flow(), Flow())
        self._lock = threading.Lock()
        self._running = 2
        self._stopped = False
        self.failure = ""
        self._broken: socket.socket | None = None
        self._answer = b""
        self._first: FlowFile | None = None  # of whom has ended it first

    def start(self, threads: ThreadGroup) -> None:
        """Begin to pass on, on two threads."""
        threads.start(f"source-{self._known.number}", lambda: self._run(self.near, self._far, self._source))
        threads.start(f"destination-{self._known.number}", lambda: self._run(self._far, self.near, self._destination))

    def cut(self) -> None:
        """End the connection for both sides, now."""
        self._stopped = True
        with self._lock:
            if self._running:
                shut(self.near)
                shut(self._far)

    @property
    def over(self) -> bool:
        """Whether both directions have ended."""
        return not self._running

    @property
    def ending(self) -> bool:
        """Whether it was cut, or is over."""
        return self._stopped or self.over

    @property
    def passed(self) -> int:
        """How many bytes have passed in both directions."""
        return self._source.passed + self._destination.passed

    @property
    def tls(self) -> bool:
        """Whether its two ends have agreed on TLS."""
        return self._head[: len(TLS_HANDSHAKE)] == TLS_HANDSHAKE == self._answer

    @property
    def greeted(self) -> bool:
        """Whether its source has said no more than whoever knows how a migration begins.

        Who is refused by the destination is no stranger: its recording says why.
        """
        head, passed = self._head, self._source.passed
        if head.startswith(TLS_HANDSHAKE):
            return not self.tls
        if self._first is self._destination or len(head) < passed:
            return False
        if self._known.role is Role.MAIN:
            return is_greeting(bytes(head))
        return passed == (INITIAL_SIZE if self._known.role is Role.MULTIFD else 0)

    @property
    def left(self) -> bool:
        """Whether the source has ended it, in whatever way."""
        return self._source.ended is not Ended.OPEN

    @property
    def ended_well(self) -> bool:
        """Whether the source has ended it in good order."""
        return self._source.ended is Ended.CLOSED

    def forget(self) -> None:
        """Remove what was recorded of it. It is over."""
        self._source.remove()
        self._destination.remove()

    @property
    def resumed(self) -> bool:
        """Whether a postcopy goes on on it after a break."""
        return self._head.startswith(POSTCOPY_RESUMED)

    @property
    def postcopy(self) -> bool:
        """Whether it is a main channel whose source has said by now that it may finish by postcopy."""
        return self.resumed or (self._known.role is Role.MAIN and _ADVISE in self._head)

    @property
    def uuid(self) -> str:
        """Of a multifd channel what it said, and of a main channel what its channels must say; empty: any."""
        if self._known.role is Role.MAIN:
            return (uuid_within(bytes(self._head)) or b"").hex()
        return self._known.uuid

    @property
    def connection(self) -> Connection:
        """What the index says of it."""
        return replace(self._known, source=self._source.flow(), destination=self._destination.flow())

    # ------------------------------------------------------------------ one direction

    def _run(self, origin: socket.socket, target: socket.socket, file: FlowFile) -> None:
        try:
            if file is self._source:
                self._pass_head(origin, target)
                self._pass_much(origin, target, file)
            else:
                while self._pass_some(origin, target, file, SMALL):
                    pass
            self._ended(file, Ended.CLOSED, by=file)
            shut(target, reading=False)
        except _Stopped:
            self._ended(file, Ended.CUT, by=file)
        except _OriginGone:
            self._ended(file, Ended.BROKEN, by=file)
            self._broken = self._broken or target
        except _TargetGone:
            self._ended(file, Ended.REFUSED, by=self._destination if file is self._source else self._source)
            shut(origin, writing=False)  # over UNIX sockets the sender hears of it at once
        except OSError as error:  # no descriptor for a pipe is left
            self._ended(file, Ended.CUT, by=file)
            self.failure = f"it cannot be passed on: {error.strerror or error}"
            self._broken = self._broken or target
        finally:
            file.close()
            self._one_ended()

    def _ended(self, file: FlowFile, how: Ended, *, by: FlowFile) -> None:
        # Before the other side is shown it: that one ends at once, and would seem to have been the first.
        self._first = self._first or by
        file.ended = how

    def _one_ended(self) -> None:
        with self._lock:
            last = self._running == 1
            if not last:
                self._running -= 1
                return
            if self._broken is not None:
                _reset(self._broken)
            self.near.close()
            self._far.close()
            self._known = replace(self._known, end=time.monotonic_ns())
            self._running = 0
        self._changed()

    def _pass_head(self, origin: socket.socket, target: socket.socket) -> None:
        """Pass on the first bytes, and see from them what the connection is."""
        enough = INITIAL_SIZE
        while len(self._head) < enough:
            data = self._pass_some(origin, target, self._source, enough - len(self._head))
            if not data:
                return
            self._head += data
            if enough == INITIAL_SIZE and self._recognised():
                # Of a main channel a little more: the source's commands, which stand before RAM.
                enough = _COMMANDS_WITHIN if self._known.role is Role.MAIN else len(self._head)
                self._changed()

    def _recognised(self) -> bool:
        if len(self._head) < MAIN_MAGIC_SIZE:
            return False
        try:
            if begins_main_channel(self._head):
                self._known = replace(self._known, role=Role.MAIN)
            elif len(self._head) < INITIAL_SIZE:
                return False
            else:
                packet = parse_initial_packet(self._head)
                uuid = packet.uuid.hex()
                self._known = replace(self._known, role=Role.MULTIFD, channel=packet.channel, uuid=uuid)
        except ProtocolError:
            pass  # it is passed on all the same: what it is, the two ends know
        return True

    def _pass_much(self, origin: socket.socket, target: socket.socket, file: FlowFile) -> None:
        with contextlib.closing(TeePipe()) as pipe:
            while size := self._waited(_OriginGone, pipe.pour, origin.fileno()):
                now = time.monotonic_ns()
                while size:
                    size -= self._pass_piece(pipe, size, target, file, now)

    def _pass_piece(self, pipe: TeePipe, size: int, target: socket.socket, file: FlowFile, now: int) -> int:
        """Pass on up to ``size`` bytes that wait in the pipe, and record them; returns how many."""
        if not file.recording:
            self._drain(pipe.outlet, target, size)
            file.unrecorded(size)
            return size
        size = pipe.duplicate(size)
        self._drain(pipe.outlet, target, size)
        # If the disk does not take them, the copies stay in their pipe, and nothing is ever put into that one again.
        file.splice(pipe.copy, size, now)
        return size

    def _pass_some(self, origin: socket.socket, target: socket.socket, file: FlowFile, size: int) -> bytes:
        """Pass on and record up to ``size`` bytes, and return them; none at the end."""
        data = self._waited(_OriginGone, origin.recv, size)
        if file is self._destination and len(self._answer) < len(TLS_HANDSHAKE):
            self._answer = (self._answer + data)[: len(TLS_HANDSHAKE)]
        if data:
            now = time.monotonic_ns()
            view = memoryview(data)
            while view:
                view = view[self._waited(_TargetGone, target.send, view) :]
            file.write(data, now)
        return data

    def _drain(self, pipe: int, target: socket.socket, size: int) -> None:
        while size:
            size -= self._waited(_TargetGone, os.splice, pipe, target.fileno(), size)

    def _waited(self, gone: type[Exception], call: Callable[..., T], *arguments: object) -> T:
        """What a call that waits for a side comes to; ``gone`` is raised if that side has gone."""
        while True:
            try:
                return call(*arguments)
            except OSError as error:
                if self._stopped or self._broken is not None:
                    raise _Stopped from None
                if error.errno not in _WAITED:
                    raise gone from None


def _reset(sock: socket.socket) -> None:
    """Have the closing of ``sock`` be a reset for its peer, once the peer has been sent all that was to come before."""
    if sock.family == socket.AF_UNIX:
        return
    deadline = time.monotonic() + DELIVERY
    while _unsent(sock) and time.monotonic() < deadline:
        time.sleep(0.01)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _unsent(sock: socket.socket) -> int:
    waiting: int = struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))[0]
    return waiting
