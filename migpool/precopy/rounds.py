"""Pre-copy: what moves while the machine runs, round by round, and when it is time to switch over.

In each round every device that has something to save is given its turn. How a device's turn is carried out, and over
which channel, is not known here; what is known is how much it moved and how long it took. After each round the devices
are asked what is left, and :func:`decide` says whether another round is worth it. It is a pure function of what has
been measured: everything that decides about the switchover stands in it.

Guarantees:

1. There is no switchover while a device has initial data left; one that makes no headway with it is given up within
   ``PrecopyLimits.headway``, with an error that names it.
2. A device that has something left but gives nothing costs a pause a round, and no more rounds than the limit. The
   machine switches over without it when nothing has moved for ``PrecopyLimits.headway``.
3. Once a device has shown initial data, ``Turns.initial_sent`` is called once for each device, when that device has
   none left; with ``Precopy.all_say`` off, not for one that has never had anything to save while the machine runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Protocol

from migpool.core.device_calls import of
from migpool.core.machine import Slot
from migpool.device import DeviceError, Pending

PAUSE = 0.01
"""Seconds between two rounds of which the first moved nothing: the devices have to make something first."""


@dataclass(frozen=True, slots=True)
class Saved:
    """What a device's turn has saved.

    Arguments:
        settled: how many bytes of what was left.
        sent: how many bytes went to the destination for them; pages of zeros are settled without that.
        share: the part of the turn's time that those took; the rest went into what is settled without being sent.
    """

    settled: int
    sent: int
    share: float = 1.0


class Turns(Protocol):
    """What a device's turn is, for :class:`Precopy`."""

    at_once: bool
    """Whether iterable devices have one turn together, in which all are saved, or each its own."""

    def pending(self, slot: Slot, /) -> Pending:
        """Say what the device has left to save."""
        ...

    def save(self, wanted: Sequence[tuple[Slot, int]], /) -> Sequence[Saved]:
        """Save about as many bytes of each device as are given with it, less if it gives less."""
        ...

    def initial_sent(self, slot: Slot, /) -> None:
        """Say to the destination that all initial data of the device has been sent."""
        ...

    def pause(self, seconds: float, /) -> None:
        """Wait, or raise if the migration ends meanwhile."""
        ...


class Decision(Enum):
    """What to do next."""

    GO_ON = "go on"
    SWITCH_OVER = "switch over"
    GIVE_UP = "give up"


@dataclass(frozen=True, slots=True)
class PrecopyLimits:
    """What pre-copy aims at.

    Arguments:
        downtime: how long what is left may take to move once the machine has stopped, in seconds.
        rounds: the most rounds; more only while initial data is left.
        headway: how long there may be none, in seconds: no byte that moves, or no less initial data.
    """

    downtime: float
    rounds: int
    headway: float = 15.0


@dataclass(frozen=True, slots=True)
class RoundMeasure:
    """Where pre-copy stands, between two rounds.

    Arguments:
        left: what all devices together still have to save.
        rounds: how many rounds there have been.
        bytes: how many bytes crossed in them.
        seconds: how long those took, without the time between the rounds.
        idle: for how long nothing has moved, in seconds.
        stalled: for how long there has been no less initial data than now, in seconds.
        settled: how many bytes of what was left they settled; pages of zeros are among them, and do not cross.
    """

    left: Pending
    rounds: int = 0
    bytes: int = 0
    seconds: float = 0.0
    idle: float = 0.0
    stalled: float = 0.0
    settled: int = 0

    @property
    def rate(self) -> float:
        """Bytes a second over all rounds; 0 if nothing has crossed."""
        return self.bytes / self.seconds if self.bytes and self.seconds > 0 else 0.0

    @property
    def expected_downtime(self) -> float | None:
        """How long what is left takes at that rate, in seconds; ``None`` if the rate, or what is left, is not known."""
        if self.left.guessed or not self.rate:
            return None
        return (self.left.precopy + self.left.stopcopy) / self.rate


@dataclass(frozen=True, slots=True)
class Round:
    """One round, measured.

    Arguments:
        number: from 1.
        bytes: how many bytes of what was left were settled in it.
        seconds: how long it took.
        before: what all devices together had left to save before it.
        after: where pre-copy stands after it.
        sent: how many bytes went to the destination for them, as pages of zeros do not.
    """

    number: int
    bytes: int
    seconds: float
    before: Pending
    after: RoundMeasure
    sent: int

    @property
    def rate(self) -> float:
        """Bytes a second that went to the destination."""
        return self.sent / self.seconds if self.seconds > 0 else 0.0

    @property
    def dirtied(self) -> int:
        """Bytes that the devices had to save anew: what is left now beyond what the round left over."""
        return max(0, self.after.left.precopy - max(0, self.before.precopy - self.bytes))

    @property
    def dirty_rate(self) -> float:
        """Bytes a second that the devices had to save anew."""
        return self.dirtied / self.seconds if self.seconds > 0 else 0.0


def decide(measured: RoundMeasure, limits: PrecopyLimits) -> Decision:
    """Whether another round is worth it.

    It is while initial data is left, until there has been no headway for too long. Else it is not when nothing can be
    saved while the machine runs, or nothing has been for too long; when what is left fits into the downtime limit at
    the rate that has been measured; or when there have been enough rounds.
    """
    if measured.left.initial:
        return Decision.GIVE_UP if measured.stalled > limits.headway else Decision.GO_ON
    if not measured.left.precopy or measured.rounds >= limits.rounds or measured.idle > limits.headway:
        return Decision.SWITCH_OVER
    expected = measured.expected_downtime
    return Decision.SWITCH_OVER if expected is not None and expected <= limits.downtime else Decision.GO_ON


class Precopy:
    """Carries out the rounds.

    Arguments:
        slots: the devices that may have something to save while the machine runs, in the machine's order.
        turns: says what a device has left, and carries out its turn.
        limits: what it aims at.
        watch: called after each round, on the thread that runs them.

    Attributes:
        redone: for each slot's number, how many bytes its device had to save anew so far, since they had changed.
        told: the numbers of the slots for which ``Turns.initial_sent`` has been called.
        all_say: whether that is called for every device, or not for those that give nothing while the machine runs.
    """

    def __init__(
        self,
        slots: Sequence[Slot],
        turns: Turns,
        limits: PrecopyLimits,
        watch: Callable[[Round], None] | None = None,
    ) -> None:
        self._slots = slots
        self._turns = turns
        self._limits = limits
        self._watch = watch
        self._rounds = self._bytes = self._nanoseconds = self._settled = 0
        self._least_initial: int | None = None
        self._least_since = self._moved_at = 0
        self.told: set[int] = set()
        self.all_say = True
        self._givers: set[int] = set()
        self._with_initial: dict[int, str] = {}
        self.redone: dict[int, int] = dict.fromkeys((slot.number for slot in slots), 0)

    @property
    def with_initial(self) -> Sequence[str]:
        """The names of the devices that have shown initial data so far."""
        return tuple(self._with_initial.values())

    def run(self) -> RoundMeasure:
        """Save what can be saved while the machine runs, until it is time to switch over.

        It may be called again, after a wait in which the devices have changed; rounds are counted on.

        Raises:
            DeviceError: a device does not come to the end of its initial data.
        """
        self._least_initial = None
        self._moved_at = time.monotonic_ns()
        pending, measured = self._look()
        while (verdict := decide(measured, self._limits)) is Decision.GO_ON:
            begin = time.monotonic_ns()
            turns: list[Saved] = []
            for several in self._in_turns(pending):
                turn_begin = time.monotonic_ns()
                saved = self._turns.save([(slot, left.precopy) for slot, left in several])
                share = sum(one.share for one in saved) / len(saved)
                self._nanoseconds += round((time.monotonic_ns() - turn_begin) * share)
                turns += saved
            took = time.monotonic_ns() - begin
            moved, sent = sum(turn.settled for turn in turns), sum(turn.sent for turn in turns)
            self._rounds += 1
            self._bytes += sent
            self._settled += moved
            before = measured.left
            left_over = [left.precopy - turn.settled for turn, (_, left) in zip(turns, pending, strict=True)]
            if moved:
                self._moved_at = begin + took
            else:
                self._turns.pause(PAUSE)
            pending, measured = self._look()
            for over, (slot, left) in zip(left_over, pending, strict=True):
                if not left.guessed:
                    self.redone[slot.number] += max(0, left.precopy - max(0, over))
            if self._watch is not None:
                self._watch(Round(self._rounds, moved, took / 1e9, before, measured, sent))
        if verdict is Decision.GIVE_UP:
            raise self._given_up(pending)
        return measured

    def _in_turns(self, pending: list[tuple[Slot, Pending]]) -> list[list[tuple[Slot, Pending]]]:
        """Which devices have a turn together, in order: the memory has one of its own."""
        if not self._turns.at_once:
            return [[one] for one in pending]
        alone = [[one] for one in pending if not one[0].device.iterable]
        together = [one for one in pending if one[0].device.iterable]
        return [*alone, together] if together else alone

    def _look(self) -> tuple[list[tuple[Slot, Pending]], RoundMeasure]:
        """Ask every device what it has left, and say so where the initial data is through."""
        pending = [(slot, of(slot, "pending", partial(self._turns.pending, slot))) for slot in self._slots]
        self._with_initial.update((slot.number, slot.name) for slot, left in pending if left.initial)
        self._givers.update(slot.number for slot, left in pending if self.all_say or left.precopy or left.initial)
        if self._with_initial:
            for slot, left in pending:
                if not left.initial and slot.number in self._givers - self.told:
                    self.told.add(slot.number)
                    self._turns.initial_sent(slot)
        together = Pending(
            precopy=sum(left.precopy for _, left in pending),
            stopcopy=sum(left.stopcopy for _, left in pending),
            initial=sum(left.initial for _, left in pending),
            guessed=any(left.guessed for _, left in pending),
        )
        now = time.monotonic_ns()
        if self._least_initial is None or together.initial < self._least_initial:
            self._least_initial, self._least_since = together.initial, now
        idle, stalled = (now - self._moved_at) / 1e9, (now - self._least_since) / 1e9
        seconds = self._nanoseconds / 1e9
        return pending, RoundMeasure(together, self._rounds, self._bytes, seconds, idle, stalled, self._settled)

    def _given_up(self, pending: Sequence[tuple[Slot, Pending]]) -> DeviceError:
        slot, left = next((slot, left) for slot, left in pending if left.initial)
        return DeviceError(
            f"{left.initial} bytes of its initial data are left, and have not become less for "
            f"{self._limits.headway:g} s; the machine must not stop before they are sent: look at the device, or raise "
            "the limit for the peer (limits.peer), of which this is half"
        ).located(slot.name)
