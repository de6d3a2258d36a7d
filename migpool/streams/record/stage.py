"""What the threads of a replay know of each other: what has been sent, what the destination has said, and the end.

Guarantees:

1. Every wait ends: by what is waited for, by an error of any thread, by ``fail``, or when nothing has moved for the
   time limit. Bytes that are taken count as movement, and so does a message that says something new: a destination that
   repeats itself, or grants what the recording does not have, keeps nobody waiting.
2. The first error stays.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from migpool.errors import MigpoolError, PeerError, ProtocolError, TimeLimitExceeded
from migpool.streams.record.channels import DeviceKey
from migpool.wire.returnpath import Failed, GrantMessage, Message, Pong, Shut, SwitchoverAck, Welcome

HEARD: Final = 0x4D494750
"""The value of a PING that no source has sent."""


class Stage:
    """Shared by the threads of one replay.

    Arguments:
        limit: how long nothing may move, in seconds.
        places: the iterable devices' places, by which the destination's grants name them.
        largest: bytes of the longest chunk of device state in the recording.
        chunks: one more than the greatest index of a chunk in there.

    Attributes:
        error: why the replay failed; ``None`` as long as it has not.
        senders: how many connections are still sent on.
        readers: how many the destination has not ended.
        shut: the destination's last word; ``None`` as long as it has not come.
        failure: its reason, if it gave one.
    """

    def __init__(self, limit: float, places: Mapping[DeviceKey, int], largest: int, chunks: int) -> None:
        self._limit = limit
        self._places = places
        self._largest = largest
        self._chunks = chunks
        self._news = threading.Condition()
        self._moved = time.monotonic()
        self._main_sent = 0
        self._heard: set[type[Message]] = set()
        self._grants = dict.fromkeys(places.values(), 0)
        self.senders = 0
        self.readers = 0
        self.error: MigpoolError | None = None
        self.shut: int | None = None
        self.failure = ""

    def begin(self, connections: int) -> None:
        """A sender and a reader for each connection begin."""
        self.senders = self.readers = connections

    def ended(self, *, sender: bool) -> None:
        """A sender, or a reader, has ended."""
        with self._news:
            self.senders -= sender
            self.readers -= not sender
            self._news.notify_all()

    def wait(self, what: str, there: Callable[[], bool]) -> None:
        """Wait until ``there``, which is asked under the stage's lock.

        Raises:
            MigpoolError: another thread failed.
            TimeLimitExceeded: nothing has moved for the limit.
        """
        while not self.look(what, there, self._limit):
            continue

    def look(self, what: str, there: Callable[[], bool], seconds: float) -> bool:
        """The same, for so many seconds at most; returns whether it is there."""
        until = time.monotonic() + seconds
        with self._news:
            while not there():
                if self.error is not None:
                    raise self.error
                now = time.monotonic()
                if now >= self._moved + self._limit:
                    raise TimeLimitExceeded(f"{what}: nothing has moved for {self._limit:g} s")
                if now >= until:
                    return False
                self._news.wait(min(self._moved + self._limit, until) - now)
            return True

    def pause(self, until: int) -> None:
        """Wait until it is ``until`` by CLOCK_MONOTONIC in nanoseconds: the recorded source was idle as long.

        Raises:
            MigpoolError: another thread failed.
        """
        with self._news:
            while (left := until - time.monotonic_ns()) > 0:
                if self.error is not None:
                    raise self.error
                # It is the recording that waits, not the destination.
                self._moved = time.monotonic()
                self._news.wait(min(left / 1e9, self._limit / 2))

    def sent(self, main_offset: int = 0) -> None:
        """Some bytes were taken; on the main channel, all before ``main_offset``."""
        with self._news:
            self._moved = time.monotonic()
            if main_offset:
                self._main_sent = main_offset
                self._news.notify_all()

    def fail(self, error: MigpoolError) -> None:
        """End every wait with ``error``."""
        with self._news:
            self.error = self.error or error
            self._news.notify_all()

    def wait_for_main(self, offset: int) -> None:
        """Wait until the main channel has been sent up to ``offset``."""
        self.wait("main channel", lambda: self._main_sent >= offset)

    def wait_for_acknowledgement(self) -> None:
        """Wait for the destination to be ready for the switchover."""
        self.wait("the destination's readiness for the switchover", lambda: SwitchoverAck in self._heard)

    def wait_to_be_heard(self) -> None:
        """Wait for the answer to a PING of :data:`HEARD`."""
        self.wait("the answer of the destination to a PING", lambda: Pong in self._heard)

    def wait_for_grant(self, chunks: Sequence[tuple[DeviceKey, int]]) -> None:
        """Wait until one of these chunks, each a device and an index, may be sent."""
        device, index = chunks[0]
        what = f"{device[0]}, chunk {index}: no room for it at the destination"
        self.wait(what, lambda: any(self.granted(*chunk) for chunk in chunks))

    def granted(self, device: DeviceKey, index: int) -> bool:
        """Whether the chunk may be sent."""
        with self._news:
            return index < self._grants.get(self._places.get(device, -1), 0)

    def hear(self, message: Message) -> None:
        """Take a message of the destination.

        Raises:
            ProtocolError: its terms are not those that the recording was made under.
        """
        with self._news:
            new = type(message) not in self._heard
            match message:
                case Pong(value):
                    new = new and value == HEARD
                case GrantMessage(device, limit):
                    if new := self._grants.get(device, self._chunks) < min(limit, self._chunks):
                        self._grants[device] = limit
                case Welcome(chunk, devices):
                    self._check_terms(chunk, devices)
                case Failed(reason):
                    self.failure = reason
                case Shut(error):
                    self.shut = error
                    if error:
                        self.error = self.error or PeerError("the destination gave up")
                case _:
                    pass
            if new:
                self._heard.add(type(message))
                self._moved = time.monotonic()
                self._news.notify_all()

    def _check_terms(self, chunk: int, devices: int) -> None:
        if chunk < self._largest:
            raise ProtocolError(
                0,
                "destination's terms",
                f"chunks of up to {self._largest} bytes, found {chunk}: give it the budget of the recorded destination",
            )
        if devices != len(self._places):
            raise ProtocolError(
                0, "destination's terms", f"{len(self._places)} iterable devices as in the recording, found {devices}"
            )
