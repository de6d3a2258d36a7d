"""Pre-copy: what moves while the machine runs, round by round, and when it is time to switch over.

In each round every device that has something to save is given its turn. How a device's turn is carried out, and over
which channel, is not known here; what is known is how much it moved and how long it took. After each round the devices
are asked what is left, and :func:`decide` says whether another round is worth it. It is a pure function of what has
been measured: everything that decides about the switchover stands in it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from migpool.device import Pending
from migpool.machine import Slot

__all__ = ["Limits", "Measured", "Precopy", "Round", "Save", "Verdict", "decide"]

Save: TypeAlias = Callable[[Slot, int], int]
"""A device's turn: saves about as many bytes as the second argument says, and returns how many it saved."""


class Verdict(Enum):
    """What to do next."""

    GO_ON = "go on"
    SWITCH_OVER = "switch over"


@dataclass(frozen=True, slots=True)
class Limits:
    """What pre-copy aims at.

    Arguments:
        downtime: how long what is left may take to move once the machine has stopped, in seconds.
        rounds: the most rounds.
    """

    downtime: float
    rounds: int


@dataclass(frozen=True, slots=True)
class Measured:
    """Where pre-copy stands, between two rounds.

    Arguments:
        left: what all devices together still have to save.
        rounds: how many rounds there have been.
        bytes: how many bytes they moved.
        seconds: how long they took, with everything between them.
    """

    left: Pending
    rounds: int = 0
    bytes: int = 0
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Bytes a second over all rounds; 0 if nothing has moved."""
        return self.bytes / self.seconds if self.bytes and self.seconds > 0 else 0.0

    @property
    def expected_downtime(self) -> float | None:
        """How long what is left takes at that rate, in seconds; ``None`` if no rate is known."""
        return (self.left.precopy + self.left.stopcopy) / self.rate if self.rate else None


@dataclass(frozen=True, slots=True)
class Round:
    """One round, measured.

    Arguments:
        number: from 1.
        bytes: how many bytes moved in it.
        seconds: how long it took.
        before: what all devices together had left to save before it.
        after: where pre-copy stands after it.
    """

    number: int
    bytes: int
    seconds: float
    before: Pending
    after: Measured

    @property
    def rate(self) -> float:
        """Bytes a second that moved."""
        return self.bytes / self.seconds if self.seconds > 0 else 0.0

    @property
    def dirtied(self) -> int:
        """Bytes that the devices had to save anew: what is left now beyond what the round left over."""
        return max(0, self.after.left.precopy - (self.before.precopy - self.bytes))

    @property
    def dirty_rate(self) -> float:
        """Bytes a second that the devices had to save anew."""
        return self.dirtied / self.seconds if self.seconds > 0 else 0.0


def decide(measured: Measured, limits: Limits) -> Verdict:
    """Whether another round is worth it.

    It is not when nothing can be saved while the machine runs, when what is left fits into the downtime limit at the
    rate that has been measured, or when there have been enough rounds.
    """
    if not measured.left.precopy or measured.rounds >= limits.rounds:
        return Verdict.SWITCH_OVER
    expected = measured.expected_downtime
    return Verdict.SWITCH_OVER if expected is not None and expected <= limits.downtime else Verdict.GO_ON


class Precopy:
    """Carries out the rounds.

    Arguments:
        slots: the devices that may have something to save while the machine runs, in the machine's order.
        save: carries out a device's turn.
        limits: what it aims at.
        pending: says what a device has left to save; without it, the device is asked.
        watch: called after each round, on the thread that runs them.
    """

    def __init__(
        self,
        slots: Sequence[Slot],
        save: Save,
        limits: Limits,
        watch: Callable[[Round], None] | None = None,
        *,
        pending: Callable[[Slot], Pending] | None = None,
    ) -> None:
        self._slots = slots
        self._save = save
        self._limits = limits
        self._watch = watch
        self._left = pending or _asked

    def run(self) -> Measured:
        """Save what can be saved while the machine runs, until it is time to switch over."""
        begin = time.monotonic_ns()
        pending = self._pending()
        measured = Measured(_together(pending))
        while decide(measured, self._limits) is Verdict.GO_ON:
            started = time.monotonic_ns()
            moved = sum(self._save(slot, left.precopy) for slot, left in pending)
            ended = time.monotonic_ns()
            before = measured.left
            pending = self._pending()
            measured = Measured(
                _together(pending), measured.rounds + 1, measured.bytes + moved, (time.monotonic_ns() - begin) / 1e9
            )
            if self._watch is not None:
                self._watch(Round(measured.rounds, moved, (ended - started) / 1e9, before, measured))
        return measured

    def _pending(self) -> list[tuple[Slot, Pending]]:
        return [(slot, self._left(slot)) for slot in self._slots]


def _asked(slot: Slot) -> Pending:
    return slot.device.pending()


def _together(pending: Sequence[tuple[Slot, Pending]]) -> Pending:
    return Pending(
        precopy=sum(left.precopy for _, left in pending),
        stopcopy=sum(left.stopcopy for _, left in pending),
        initial=sum(left.initial for _, left in pending),
    )
