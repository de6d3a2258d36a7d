"""What the destination answers, as the source hears it: one thread reads the return path, others wait for what it says.

Guarantees:

1. Whoever waits here is woken by the answer, by the destination's failure or end, or by the time limit; never later.
2. The destination's own reason for a failure is kept, also when another thread noticed the failure first.
3. The end of the connection says something of the destination only if it has said it (TLS), or if both ends are of one
   host and nothing else can have ended it. Otherwise it may have been cut, by whatever stands in between.
4. A destination that gives no room to a waiting chunk for the time limit is an error that names the device and the
   chunk.
5. A message that cannot come yet, or not once more, is a protocol error: GRANT before WELCOME, a PONG that answers no
   PING, RUNNING (and SHUT 0 of a destination that knows no RUNNING) before everything has been sent, DIGEST or SHUT 0
   before RUNNING, anything after SHUT.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable

from migpool.core.cancel import CancelSwitch
from migpool.errors import Cancelled, MigpoolError, PeerError, PeerGone, ProtocolError, TimeLimitExceeded, Untrusted
from migpool.transport.sockets import RETURN_PATH_READ_SIZE, read_some, within_host
from migpool.transport.tls import TlsSocket, check_plain
from migpool.wire.returnpath import (
    Digest,
    Failed,
    GrantMessage,
    Message,
    Pong,
    ReturnPathReader,
    Running,
    Shut,
    SwitchoverAck,
    Welcome,
)

PING_VALUE = 1
"""Of the first PING that a source sends; those that relate the clocks count on from it."""
NO_REASON = "the destination failed, and gives no reason"
RUNS_THERE = "the machine runs at the destination, but"


class ReturnPath:
    """The return path of one migration.

    Arguments:
        sock: the main channel's socket; only its reading side is used here.
        switch: thrown when the destination fails or goes away before the machine runs there.
        limit: how long an answer may take, in seconds.
        grant: takes a grant: an iterable device's place and its limit; says whether there is such a device.
        waiting: what waits for room just now, in words; empty if nothing does.
        devices: how many devices the machine has.
        extension: whether the destination speaks this project's own messages.

    Attributes:
        acknowledged: how often the destination has said that it is ready: when it is set up, and when it has loaded all
            initial data.
        heard: when each PONG came, CLOCK_MONOTONIC in nanoseconds, by its value.
    """

    def __init__(
        self,
        sock: socket.socket,
        switch: CancelSwitch,
        limit: float,
        grant: Callable[[int, int], bool],
        waiting: Callable[[], str],
        devices: int,
        *,
        extension: bool,
    ) -> None:
        self._sock = sock
        self._switch = switch
        self._limit = limit
        self._grant = grant
        self._waiting = waiting
        self._devices = devices
        self._extension = extension
        self._all_sent = False
        self._reader = ReturnPathReader(extension)
        self._news = threading.Condition(threading.Lock())
        self._stopped = False
        self._heard = time.monotonic()
        self._over: MigpoolError | None = None
        self._says_end = isinstance(sock, TlsSocket)
        self._proven_end = False
        self.welcome: Welcome | None = None
        self.heard: dict[int, int] = {}
        self._pings = {PING_VALUE}
        self.acknowledged = 0
        self.running: Running | None = None
        self.running_at = 0
        self.digests: dict[int, bytes] = {}
        self.failure = ""
        self.shut: int | None = None
        switch.on_cancel(self._wake)

    def listen(self) -> None:
        """Read answers until the destination ends the return path. A thread of its own runs this."""
        first = not self._says_end
        try:
            while not self._stopped:
                data = read_some(self._sock, RETURN_PATH_READ_SIZE, self._idle)
                if first:
                    first = False
                    check_plain(data)
                if not data:
                    self._proven_end = self._says_end
                    self._reader.end()
                    raise PeerGone("the destination closed the connection")
                self._heard = time.monotonic()
                self._reader.feed(data)
                for message in self._reader.events():
                    self._take(message)
        except ProtocolError as error:
            self._end(ProtocolError(error.offset, f"return path: {error.item}", error.expected))
        except PeerGone as error:
            self._proven_end = self._proven_end or (not self._says_end and within_host(self._sock))
            self._end(error)
        except MigpoolError as error:
            self._end(error)
        except Exception as error:  # noqa: BLE001 -- it must reach the migration, not die with the thread
            self._end(PeerError(f"the return path cannot be read: {error}"))

    def stop(self) -> None:
        """Have ``listen`` end at its next tick."""
        self._stopped = True

    def expect_pong(self, value: int) -> None:
        """A PING of this value is about to be sent."""
        with self._news:
            self._pings.add(value)

    def expect_running(self) -> None:
        """Everything but the stream's end has been sent: from now on the machine may run at the destination."""
        with self._news:
            self._all_sent = True

    def wait(self, what: str, answered: Callable[[], bool]) -> None:
        """Wait until ``answered``.

        Arguments:
            what: names the wait in an error.

        Raises:
            PeerError: the destination failed or went away.
            TimeLimitExceeded: no answer came in time.
            Cancelled: the migration was cancelled.
        """
        deadline = time.monotonic() + self._limit
        with self._news:
            while not answered():
                if self._over is not None:
                    raise self._over
                if self.running is None:
                    self._switch.check()
                left = deadline - time.monotonic()
                if left <= 0:
                    limit = f"within {self._limit:g} s (limits.peer)"
                    raise TimeLimitExceeded(f"{what}: no answer of the destination {limit}")
                self._news.wait(left)

    def reason(self, patience: float) -> MigpoolError | None:
        """Why the destination failed, in its own words, if it says within ``patience`` seconds that it has."""
        deadline = time.monotonic() + patience
        with self._news:
            while not self.failure and not self.shut and self._over is None and time.monotonic() < deadline:
                self._news.wait(max(0.0, deadline - time.monotonic()))
        if not self.failure:
            if isinstance(self._over, Untrusted):
                return self._over
            return PeerGone(NO_REASON) if self.shut else None
        return PeerError(f"{RUNS_THERE if self.running else 'the destination failed'}: {self.failure}")

    @property
    def cut(self) -> bool:
        """Whether the return path has ended in a way that proves nothing about the destination."""
        return self._over is not None and not self._proven_end

    def verdict(self, patience: float) -> bool | None:
        """Whether the machine runs at the destination, once everything has been sent there and it is too late to ask.

        Returns:
            ``True`` if it does, ``False`` if the destination gave up or ended the connection without starting it,
            ``None`` if it has not said within ``patience`` seconds, or before it was cut, or nothing that can be
            understood.
        """
        deadline = time.monotonic() + patience
        with self._news:
            while self.running is None and self.shut is None and self._over is None and time.monotonic() < deadline:
                self._news.wait(max(0.0, deadline - time.monotonic()))
            if self.running is not None or self.shut == 0:
                return True
            if isinstance(self._over, ProtocolError):
                return None
            return False if self.shut is not None or (self._over is not None and not self.cut) else None

    def _take(self, message: Message) -> None:
        if isinstance(message, GrantMessage):  # by far the most frequent
            if self.welcome is None or self.shut is not None:
                right = "WELCOME before it" if self.welcome is None else "nothing after SHUT, which is the last message"
                raise ProtocolError(message.offset, "GRANT", right)
            if not self._grant(message.device, message.limit):
                right = f"the place of one of this machine's devices, found {message.device}"
                raise ProtocolError(message.offset, "GRANT", f"{right}: start both ends with the same scenario")
            return
        with self._news:
            self._note(message)
            self._news.notify_all()
        if self.running is None:
            if isinstance(message, Failed):
                self._switch.cancel(PeerError(f"the destination failed: {message.reason}"))
            elif isinstance(message, Shut) and message.error and not self.failure:
                self._switch.cancel(PeerGone(NO_REASON))

    def _note(self, message: Message) -> None:
        if right := self._out_of_place(message):
            raise ProtocolError(message.offset, type(message).__name__.upper(), right)
        match message:
            case Welcome():
                self.welcome = message
            case Pong(value):
                self.heard[value] = time.monotonic_ns()
            case SwitchoverAck():
                self.acknowledged += 1
            case Running():
                self.running_at = time.monotonic_ns()
                self.running = message
            case Digest(place, digest):
                self.digests[place] = digest
            case Failed(reason):
                self.failure = reason
            case Shut(error):
                self.shut = error
            case _:
                raise ProtocolError(
                    message.offset, "return path", f"no request for pages or bitmaps, found {type(message).__name__}"
                )

    def _out_of_place(self, message: Message) -> str:
        """What would have been right instead of a message that cannot come now; empty if it can."""
        if self.shut is not None:
            return "nothing after SHUT, which is the last message"
        match message:
            case Running() if self.running is not None:
                return "one RUNNING, found another"
            case Running() if not self._all_sent:
                return "not before everything has been sent: the machine has not left the source"
            case Shut(0) if self._extension and self.running is None:
                return "RUNNING before it"
            case Shut(0) if not self._all_sent:
                return "not before everything has been sent: the machine has not left the source"
            case Digest() if self.running is None:
                return "RUNNING before it"
            case Digest(place) if place >= self._devices or place in self.digests:
                return f"the place of one of {self._devices} devices, each once, found {place}"
            case Welcome() if self.welcome is not None:
                return "one WELCOME, found another"
            case Pong(value) if value not in self._pings or value in self.heard:
                return f"one answer to each PING, found PONG {value}"
            case SwitchoverAck() if self.acknowledged > self._devices:
                return f"one at the set-up and one a device, found more than {self._devices + 1}"
            case Failed() if self.failure:
                return "one reason, found another"
        return ""

    def _idle(self) -> None:
        if self._stopped:
            raise Cancelled("the return path is no longer needed")
        waiting = self._waiting()
        if waiting and time.monotonic() - self._heard > self._limit:
            raise PeerError(f"{waiting}: the destination has given no room for it for {self._limit:g} s (limits.peer)")

    def _end(self, error: MigpoolError) -> None:
        with self._news:
            self._over = self._over or error
            self._news.notify_all()
        if self.running is not None or self._stopped:
            return
        # Once everything has been sent, what makes no sense leaves open whose the machine is: whoever waits decides.
        if not (self._all_sent and isinstance(error, ProtocolError)):
            self._switch.cancel(error)

    def _wake(self) -> None:
        with self._news:
            self._news.notify_all()
