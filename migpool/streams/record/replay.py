"""Plays a recording into a waiting destination.

The connections are opened in the recorded or in a seeded other order, each greets the destination with its first bytes,
and then each is sent by a thread of its own (:mod:`migpool.streams.record.player`) while another reads what comes
back. The sockets stay open until the destination has had its last word, as a source keeps them.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

from migpool.core.threads import ThreadGroup
from migpool.errors import Cancelled, MigpoolError, PeerError, ProtocolError
from migpool.streams.record.index import Role
from migpool.streams.record.playable import Playable
from migpool.streams.record.player import Player
from migpool.streams.record.stage import Stage
from migpool.transport.address import Address
from migpool.transport.connections import took
from migpool.transport.sockets import connect, prepare, shut
from migpool.wire.multifd import INITIAL_SIZE
from migpool.wire.returnpath import ReturnPathReader
from migpool.wire.stream import header

TICK: Final = 0.25
PATIENCE: Final = 2.0
"""Seconds that a destination which closed a connection is given to say why."""
_READ: Final = 1 << 16
_GREETINGS: Final = {Role.MULTIFD: INITIAL_SIZE, Role.MAIN: len(header()), Role.UNKNOWN: 0}
"""By how many bytes a destination sees what a connection is; one of ours also reads a main channel's configuration."""


@dataclass(frozen=True, slots=True)
class Played:
    """How a replay ended.

    Attributes:
        accepted: the destination said SHUT 0; or, where the recording has no return path, it took every byte.
        line: what happened, in one line.
        bytes: how many bytes were sent.
        cancelled: it was cancelled from here.
    """

    accepted: bool
    line: str
    bytes: int
    cancelled: bool = False


class Replay:
    """One replay.

    Arguments:
        recording: what to play.
        to: where the destination listens.
        seed: opens the connections in an order made from it; ``None`` for the recorded order.
        speed: "recorded": no byte is sent earlier after the beginning than it was then; "full": as fast as possible.
        limit: how long the destination may show no progress, in seconds.
        connect_limit: how long to look for the destination, in seconds.
        stop: asked four times a second whether to end now.

    Attributes:
        order: the connections in the order in which they are opened.
    """

    def __init__(
        self,
        recording: Playable,
        to: Address,
        *,
        seed: int | None = None,
        speed: Literal["recorded", "full"] = "recorded",
        limit: float = 30.0,
        connect_limit: float = 10.0,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._recording = recording
        self._to = to
        self.order = recording.connections
        if seed is not None:
            random.Random(seed).shuffle(self.order)
        if recording.preempt is not None:
            # Nothing is said on it at first: a destination knows it by its coming after the main channel.
            self.order.remove(recording.preempt)
            self.order.insert(self.order.index(recording.main) + 1, recording.preempt)
        self._speed = speed
        self._limit = limit
        self._connect_limit = connect_limit
        self._stop = stop
        places = {device: place for place, device in enumerate(recording.summary.iterable)}
        largest = max((plan.largest for plan in recording.channels), default=0)
        chunks = max((plan.chunks for plan in recording.channels), default=0)
        self._stage = Stage(limit, places, largest, chunks)
        self._players: list[Player] = []

    def run(self) -> Played:
        """Play, and wait for the destination to end.

        Raises:
            UsageError: the destination's address does not exist.
            PeerError: nobody listened there.
        """
        with contextlib.ExitStack() as stack:
            begin = time.monotonic_ns() if self._speed == "recorded" else None
            try:
                self._open(stack, begin)
            except MigpoolError as error:
                if not self._players:
                    raise
                self._stage.fail(error)  # the first connections may still hear the reason
            threads = ThreadGroup()
            stack.callback(threads.close)
            stack.callback(self._end)
            self._stage.begin(len(self._players))
            for player in self._players:
                threads.start(f"read-{player.connection.number}", partial(self._read, player))
                threads.start(f"play-{player.connection.number}", partial(self._play, player))
            return self._outcome()

    def _open(self, stack: contextlib.ExitStack, begin: int | None) -> None:
        for connection in self.order:
            if self._stop():
                raise Cancelled("cancelled")
            sock = connect(self._to, time.monotonic() + self._connect_limit, self._connect_limit, taken=self._taken())
            stack.callback(sock.close)
            prepare(sock, limit=self._limit, tick=TICK)
            player = Player(self._recording, connection, sock, self._stage, begin)
            self._players.append(player)
            # A destination waits for the first bytes of one connection before it takes the next.
            more = self._recording.summary.configured if connection.role is Role.MAIN else 0
            player.greet(max(_GREETINGS[connection.role], more))

    def _taken(self) -> str:
        """What the destination has taken already; empty if nothing."""
        channels = [player for player in self._players if player.connection.role is Role.MULTIFD]
        return took(len(channels), len(self._recording.channels)) if self._players else ""

    # ------------------------------------------------------------------ threads

    def _play(self, player: Player) -> None:
        try:
            if player.connection.role is Role.MAIN:
                player.play_main()
            elif player.connection is self._recording.preempt:
                player.play_preempt()
            else:
                plan = next(one for one in self._recording.channels if one.connection is player.connection)
                if self._recording.summary.credited:
                    player.play_granted(plan)
                else:
                    player.play_channel(plan)
        except MigpoolError as error:
            if self._stage.shut != 0:  # a machine that runs needs no more, not even the rest of a description
                self._stage.fail(error)
        except OSError as error:
            self._stage.fail(MigpoolError(f"the recording cannot be read: {error}"))
        finally:
            self._stage.ended(sender=True)

    def _read(self, player: Player) -> None:
        reader = ReturnPathReader(self._recording.summary.credited)
        main = player.connection.role is Role.MAIN
        try:
            while data := self._some(player):
                if main:
                    reader.feed(data)
                    for message in reader.events():
                        self._stage.hear(message)
            if main and self._recording.answered and self._stage.shut is None:
                raise player.closed_early()
        except ProtocolError as error:
            self._stage.fail(ProtocolError(error.offset, f"return path: {error.item}", error.expected))
        except MigpoolError as error:
            self._stage.fail(error)
        finally:
            self._stage.ended(sender=False)

    def _some(self, player: Player) -> bytes:
        while True:
            try:
                return player.sock.recv(_READ)
            except BlockingIOError:
                continue
            except OSError:
                if self._stage.shut == 0:
                    return b""  # the machine runs there; how its sockets go away does not matter any more
                raise player.closed_early() from None

    def _end(self) -> None:
        self._stage.fail(Cancelled("the replay is over"))
        for player in self._players:
            shut(player.sock)

    # ------------------------------------------------------------------ the end

    def _outcome(self) -> Played:
        stage = self._stage
        try:
            self._until(lambda: not stage.senders, "the destination")
            if self._recording.answered:
                self._until(lambda: stage.shut is not None, "the destination has everything and has not said SHUT")
            for player in self._players:
                shut(player.sock, reading=False)
            self._until(lambda: not stage.readers, "the destination has everything and does not end")
        except MigpoolError as error:
            if stage.shut != 0:
                return self._failed(error)
        if stage.shut == 0:
            return self._said(True, "accepted: the destination said SHUT 0")
        if stage.error is not None:  # it came with, or after, what was waited for
            return self._failed(stage.error)
        return self._said(True, "accepted: the destination took every byte, and has no return path to say more")

    def _failed(self, error: MigpoolError) -> Played:
        stage = self._stage
        if isinstance(error, Cancelled):
            return self._said(False, "cancelled", cancelled=True)
        if isinstance(error, PeerError) and self._recording.answered:
            # Its own reason may still be on the way.
            deadline = time.monotonic() + PATIENCE
            while stage.shut is None and stage.readers and time.monotonic() < deadline and not self._stop():
                time.sleep(0.02)
        if stage.shut:
            why = f": {stage.failure}" if stage.failure else ", and gives no reason"
            return self._said(False, f"the destination said SHUT {stage.shut}{why}")
        return self._said(False, str(error))

    def _said(self, accepted: bool, line: str, *, cancelled: bool = False) -> Played:
        return Played(accepted, line, sum(player.sent for player in self._players), cancelled)

    def _until(self, over: Callable[[], bool], what: str) -> None:
        """Wait, and look at ``stop`` meanwhile; senders have waits and time limits of their own."""
        while not self._stage.look(what, over, TICK):
            if self._stop():
                raise Cancelled("cancelled")
