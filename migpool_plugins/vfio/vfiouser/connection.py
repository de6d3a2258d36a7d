"""One connection to a vfio-user server, as its client: commands out, replies in, each with a time limit.

Guarantees:

* A message goes out in one ``sendmsg``: some servers read a message with a single receive.
* What a reply's header says has come is read whole, errors included, so the framing is kept whatever the answer is.
* The server's own commands (it may ask for guest memory at any time) are answered while a reply is waited for: there is
  no guest memory behind this client, so the answer is an error, never silence.
* Data is received straight into the caller's buffer.
* An interruption ends every wait within a tick, from any thread, and the connection stays: there are servers that reset
  a device whose client goes away. What is still owed to an interrupted request is received by ``settle``.
* Anything that leaves the framing in doubt finishes the connection: a time limit, an end of file, bytes that are no
  message, an interruption in the middle of a message that does not go on. So does ``abort``, at once and from any
  thread. Who wants the device connects again.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Final

from migpool_plugins.vfio.backend import BackendError, Interruption, NoAnswer
from migpool_plugins.vfio.transfer import limit_waits
from migpool_plugins.vfio.vfiouser.message import (
    DATA,
    HEADER,
    PART,
    Header,
    MessageError,
    UserCommand,
    command,
    reply,
    words,
)

_TICK: Final = 0.1
"""Seconds of a wait in the kernel, after which an interruption is looked for."""
_SCRATCH: Final = 64 << 10
_SHORT: Final = 16
"""Bytes of payload that answers to the usual requests have at the most."""
_MOST: Final = 64 << 20
"""Bytes that a message may have: more is no message, but framing that was lost."""


def refusal(what: str, number: int) -> BackendError:
    """Return the error for what a server refused with an error number."""
    return BackendError(f"{what}: {words(number)}", number)


class Connection:
    """A connection that has been made.

    Arguments:
        connected: the socket; the connection owns it.
        server: what to call the server in an error.
        limit: seconds that one answer may take, and one message to be taken.
        interruption: ends what waits here.

    Attributes:
        over: whether nothing can be asked here any more.
    """

    def __init__(self, connected: socket.socket, server: str, limit: float, interruption: Interruption) -> None:
        self._socket = connected
        self._server = server
        self._limit = limit
        self._interruption = interruption
        self._unanswered: deque[int] = deque()
        self._lock = threading.Lock()
        self._closed = False
        self.over = False
        self._numbers = itertools.cycle(range(1, 1 << 16))
        self._head = memoryview(bytearray(HEADER.size))
        self._short = memoryview(bytearray(HEADER.size + _SHORT))
        self._early = self._short[:0]
        self._data_head = memoryview(bytearray(DATA.size))
        self._part_head = memoryview(bytearray(PART.size))
        limit_waits(connected, min(limit, _TICK))

    def widen(self, size: int) -> None:
        """Make room for messages of ``size`` bytes: each then takes fewer turns between the two processes."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)

    def limited(self, limit: float) -> float:
        """Give each answer from now on so many seconds; returns how many it had."""
        before, self._limit = self._limit, limit
        return before

    def ask(self, what: UserCommand, payload: bytes, name: str, refused: str) -> bytes:
        """Send a command, which errors call ``name``, and return what its answer brings.

        Raises:
            BackendError: the server refused, which ``refused`` says in words.
            NoAnswer: the connection is over.
        """
        number = self.send(what, payload, name)
        # A short answer comes whole, with nothing behind it: one call takes it. Whatever else comes is seen to below.
        count = self._received(self._short, name, 0)
        if count >= HEADER.size:
            header = Header.of(self._short)
            if header.answers(number) and header.size == count:
                self._unanswered.remove(number)
                return bytes(self._short[HEADER.size : count])
        self._early = self._short[:count]
        header = self._await(number, name)
        came = b""
        if rest := header.rest:
            room = bytearray(min(rest, _SCRATCH))
            self._fill(memoryview(room), name)
            self._drain(rest - len(room), name)
            came = bytes(room)
        if number := header.refusal:
            raise refusal(refused, number)
        return came

    def ask_for_data(self, size: int, buffer: memoryview) -> int:
        """Send a MIG_DATA_READ of ``size`` bytes and receive what comes straight into ``buffer``, which has the room.

        Returns:
            How many bytes came; raises as :meth:`ask` does.
        """
        question = DATA.pack(DATA.size + size, size)
        return self._ask_for(UserCommand.MIG_DATA_READ, question, self._data_head, DATA, size, buffer)[1]

    def ask_for_part(self, size: int, buffer: memoryview) -> tuple[int, int]:
        """Send a MIG_PART_READ, and receive as :meth:`ask_for_data` does.

        Returns:
            The part's tag, and how many bytes came; 0 if no part is left.
        """
        question = PART.pack(PART.size + size, size, 0)
        _, came, tag = self._ask_for(UserCommand.MIG_PART_READ, question, self._part_head, PART, size, buffer)
        return tag, came

    def _ask_for(
        self,
        what: UserCommand,
        question: bytes,
        head: memoryview,
        form: struct.Struct,
        size: int,
        buffer: memoryview,
    ) -> tuple[int, ...]:
        name = "read"
        header = self._await(self.send(what, question, name), name)
        if header.refusal:
            self._drain(header.rest, name)
            raise refusal("the read was refused", header.refusal)
        if header.rest < form.size:
            raise self._lost(f"answered a {name} with {header.rest} bytes")
        self._fill(head, name)
        room = header.rest - form.size
        said: tuple[int, ...] = form.unpack(head)
        came = said[1]
        if came > min(size, room):
            raise self._lost(f"answered a read of {size} bytes with {came}, in a message that has room for {room}")
        # A server may send as much as was asked for and say that less of it is data.
        self._fill(buffer[:came], name)
        self._drain(room - came, name)
        return said

    def send(
        self, what: UserCommand, payload: bytes, name: str, data: memoryview | None = None, ask: bool = True
    ) -> int:
        """Send a command; returns its number, by which :meth:`answer` finds the reply.

        Arguments:
            what: the command.
            payload: what belongs to it.
            name: what to call it in an error.
            data: more of the payload, sent from where it lies.
            ask: whether a reply is wanted.
        """
        number = next(self._numbers)
        length = len(payload) + (len(data) if data is not None else 0)
        front = command(number, what, length, no_reply=not ask) + payload
        if ask:
            self._unanswered.append(number)
        sent = self._sent((front,) if data is None else (front, data), name)
        if sent < HEADER.size + length:
            # The server takes it slowly: the kernel gave up after a tick, or a signal came.
            begun = time.monotonic()
            rest = memoryview(front + bytes(data or b""))[sent:]
            while rest:
                self._check_wait(begun, name)
                rest = rest[self._sent((rest,), name) :]
        return number

    def _sent(self, parts: Sequence[bytes | memoryview], name: str) -> int:
        try:
            return self._socket.sendmsg(parts)
        except BlockingIOError:
            return 0
        except ConnectionError:
            raise self._lost(f"went away before it had answered a {name}") from None
        except OSError as error:
            raise self._lost(f"took no {name}: {error.strerror}") from None

    def _check_wait(self, begun: float, name: str) -> None:
        """A wait in the middle of a message has lasted since ``begun``, and goes on unless this raises."""
        if self._interruption.raised or self._interruption.closed:
            self.abort()
            self._interruption.check()
        if time.monotonic() - begun > self._limit:
            raise self._late(name)

    def answer(self, number: int, name: str) -> int:
        """Wait for a reply without payload to be looked at; returns its error number, 0 without an error."""
        header = self._await(number, name)
        self._drain(header.rest, name)
        return header.refusal

    def _await(self, number: int, name: str) -> Header:
        """Return the header of the reply to a command; what the server itself asks meanwhile is answered."""
        deadline = time.monotonic() + self._limit
        while True:
            header = self._next_header(deadline, name)
            if header is None:
                raise self._late(name)
            if header.is_reply:
                if header.number != number:
                    raise self._lost(f"answered message {header.number}, while {number} waits for its answer")
                self._unanswered.remove(number)
                return header
            self._drain(header.rest, name)
            self._refuse(header, name)
            if time.monotonic() > deadline:
                raise self._late(name)

    def _next_header(self, deadline: float, name: str) -> Header | None:
        """Receive a header; ``None`` if none has begun by then.

        An interruption before its first byte raises, and leaves the connection as it is.
        """
        while not (count := self._received(self._head, name)):
            self._interruption.check()
            if time.monotonic() > deadline:
                return None
        if count < HEADER.size:
            self._fill(self._head[count:], name)
        try:
            return Header.parse(self._head, _MOST)
        except MessageError as error:
            raise self._lost(f"lost the framing: {error}") from None

    @property
    def owes(self) -> bool:
        """Whether answers have still to come to requests that were interrupted."""
        return bool(self._unanswered)

    def settle(self, limit: float) -> bool:
        """Receive what is owed to interrupted requests.

        Returns:
            Whether all has come within ``limit`` seconds; what has not is still owed.
        """
        name = "request that was interrupted"
        deadline = time.monotonic() + limit
        while self._unanswered:
            header = self._next_header(deadline, name)
            if header is None:
                return False
            self._drain(header.rest, name)
            if not header.is_reply:
                self._refuse(header, name)
            elif header.number in self._unanswered:
                self._unanswered.remove(header.number)
            else:
                raise self._lost(f"answered message {header.number}, which nobody had sent")
        return True

    def _refuse(self, asked: Header, name: str) -> None:
        """Answer a command of the server's: there is no guest memory here, and nothing else it could ask for."""
        if not asked.wants_reply:
            return
        memory = asked.command in (UserCommand.DMA_READ, UserCommand.DMA_WRITE)
        try:
            self._socket.sendall(reply(asked, 0, errno.EFAULT if memory else errno.ENOTSUP))
        except OSError as error:
            raise self._lost(f"took no answer while a {name} was waited for: {error.strerror}") from None

    def _drain(self, length: int, name: str) -> None:
        if not length:
            return
        scratch = memoryview(bytearray(min(length, _SCRATCH)))
        begun = time.monotonic()
        while length:
            part = scratch[: min(length, _SCRATCH)]
            self._fill(part, name)
            length -= len(part)
            # Each part has the limit, but there may be a thousand of them.
            if length and time.monotonic() - begun > self._limit:
                raise self._late(name)

    def _fill(self, view: memoryview, name: str) -> None:
        begun: float | None = None
        while view:
            view = view[self._received(view, name) :]
            if view:
                # A peer that dribbles must not have the limit of a call again and again.
                begun = begun or time.monotonic()
                self._check_wait(begun, name)

    def _received(self, view: memoryview, name: str, flags: int = socket.MSG_WAITALL) -> int:
        """Receive into a view, for a tick at the most; returns how many bytes came."""
        if self._early:
            count = min(len(view), len(self._early))
            view[:count] = self._early[:count]
            self._early = self._early[count:]
            return count
        try:
            count = self._socket.recv_into(view, 0, flags)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise self._lost(f"went away before it answered a {name}: {error.strerror}") from None
        if not count:
            raise self._lost(f"went away before it had answered a {name}")
        return count

    def _late(self, name: str) -> NoAnswer:
        self.abort()
        what = (
            f"the device's {name} did not return"
            if name in ("read", "write")
            else f"the device did not answer {name!r}"
        )
        return NoAnswer(f"{what} within {self._limit:.3g} s", errno.ETIMEDOUT)

    def _lost(self, how: str) -> NoAnswer:
        self.abort()
        return NoAnswer(f"the {self._server} {how}")

    def abort(self) -> None:
        """End every wait at once; nothing can be asked here any more."""
        with self._lock:
            self.over = True
            if not self._closed:
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the socket; harmless when it has been done. No other call may be under way but ``abort``."""
        with self._lock:
            self.over = True
            if not self._closed:
                self._closed = True
                self._socket.close()
