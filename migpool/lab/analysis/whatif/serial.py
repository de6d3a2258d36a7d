"""Finds a lock that no span shows: devices whose reads (or writes) are done one after the other outside of migpool.

A lock in a driver, in firmware or in the device process makes each thread's read last longer, and nothing else: the
spans overlap, as if the devices worked side by side. It shows in when they end. Let the reads of some devices be
ordered by their ends; then the *turn* of a read is the time from the later of its own begin and the end of the read
before it to its own end. If one server does all of them, the turns are its service times: about the same for reads of
one size, and never near 0. Devices that work by themselves end at moments that have nothing to do with each other, so
that their turns are anything between 0 and a whole read.

Devices are taken to share something if all of this holds:

* their threads were in a read at the same time, ``TOGETHER`` of them on average while any was: else one thread, or one
  worker, would explain that the reads follow each other;
* the turns are alike: ``MOST`` of them differ from the median by less than ``ALIKE`` of it, and the medians of the
  devices agree within ``EVEN`` (``EVEN_TWO``, if there are only two devices). What is left aside are reads that did
  not wait, shorter than ``SHORT`` of the median read (the device had read ahead; the last one, that says "no more");
* a read lasts longer the more are before it: ``LONG`` turns at least in the mean, but some, as when the first ones
  begin, at least half a turn less than that. Reads that others put in step, such as the sends between them through one
  channel, all last the same;
* if it is about some of the devices only: ``AMONG`` of the turns are alike, and the medians of the devices' reads,
  waiting included, agree within ``FAIR``, since of many pairs one is in step by chance. (A lock need not be fair: who
  gives it back may have it again at once. So among all of them nothing is said of how long each one waits.)
* a turn takes ``SHORTEST`` at least;
* the turns fill the time: there is no more than ``IDLE`` of it in which all the threads waited and no turn ran.

Limits: two devices that work by themselves but keep in step, always half a read apart, look the same; the third rule
is what they fail, unless a read-ahead breaks that too. A lock that only a few of many reads need is not found, nor one
of devices whose turns are of very different lengths.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, median

from migpool.core.trace import Span
from migpool.lab.analysis.span_index import covered

TOGETHER = 1.5
ALIKE = 1 / 3
MOST = 0.5
EVEN = 1.25
EVEN_TWO = 1.08
FAIR = 1.35
AMONG = 0.7
SHORT = 0.1
LONG = 1.6
IDLE = 0.25
SHORTEST = 250_000
"""Nanoseconds that a turn must last: less is what threads of one process take from each other, whoever computes."""
FEWEST = 4
"""Reads of each device that there must be: fewer say nothing."""
MOST_TRIED = 12
"""Devices up to which subsets are looked at: one after the other is left out, as long as that helps."""


@dataclass(frozen=True, slots=True)
class InTurn:
    """Devices whose reads, or writes, are done one after the other, though nothing in migpool makes them.

    Attributes:
        slots: the devices'.
        turns: how long each read took by itself, in nanoseconds, by slot and chunk.
        turn: the median of them.
        wait: the mean of how long a thread was in a read, its own turn included.
    """

    slots: tuple[int, ...]
    turns: dict[tuple[int, int], int]
    turn: int
    wait: int


def in_turn(spans: Sequence[Span]) -> InTurn | None:
    """The devices among whose reads one lock must lie; ``None`` if there are none.

    Arguments:
        spans: all reads, or all writes, of one side's iterable devices within the downtime.
    """
    by_slot: defaultdict[int, list[Span]] = defaultdict(list)
    for span in spans:
        by_slot[span.slot].append(span)
    slots = [slot for slot in sorted(by_slot) if len(by_slot[slot]) >= FEWEST]
    while len(slots) > 1:
        found = _Turns([span for slot in slots for span in by_slot[slot]])
        if found.one_server() and (len(slots) == len(by_slot) or found.surely()):
            return InTurn(tuple(slots), found.turns, found.turn, found.wait)
        if len(slots) > MOST_TRIED:
            return None
        fewer = [[one for one in slots if one != left_out] for left_out in slots]
        if len(slots) == 2:
            return None
        slots = max(fewer, key=lambda group: _Turns([span for slot in group for span in by_slot[slot]]).alike)
    return None


class _Turns:
    """The reads of some devices, seen as if one server did them."""

    def __init__(self, spans: list[Span]) -> None:
        spans.sort(key=lambda span: (span.end, span.begin))
        typical = median(span.duration for span in spans)
        self.turns: dict[tuple[int, int], int] = {}
        self._spans = [span for span in spans if span.duration >= SHORT * typical]
        before = spans[0].begin
        self._durations: defaultdict[int, list[int]] = defaultdict(list)
        for span in self._spans:
            self._durations[span.slot].append(span.duration)
            turn = span.end - max(span.begin, before)
            self.turns[span.slot, span.index] = turn
            before = max(before, span.end)
        values = list(self.turns.values())
        self.turn = int(median(values)) if values else 0
        self.wait = int(mean(span.duration for span in self._spans)) if self._spans else 0
        self.alike = sum(map(self._is_alike, values)) / max(1, len(values))
        self._sooner = sum(
            span.duration <= self.wait - self.turn / 2 and self._is_alike(self.turns[span.slot, span.index])
            for span in self._spans
        )

    def _is_alike(self, turn: int) -> bool:
        return abs(turn - self.turn) < ALIKE * self.turn

    def surely(self) -> bool:
        """Whether the rules for some of the devices hold too."""
        lasting = [median(durations) for durations in self._durations.values()]
        return self.alike >= AMONG and max(lasting) <= FAIR * min(lasting)

    def one_server(self) -> bool:
        """Whether the rules for all of the devices hold."""
        if self.turn < SHORTEST or self.alike < MOST or not self._sooner or self.wait < LONG * self.turn:
            return False
        by_slot: defaultdict[int, list[int]] = defaultdict(list)
        for (slot, _), turn in self.turns.items():
            by_slot[slot].append(turn)
        medians = [median(turns) for turns in by_slot.values()]
        if max(medians) > (EVEN_TWO if len(medians) == 2 else EVEN) * min(medians):
            return False
        waited = max(1, covered((span.begin, span.end) for span in self._spans))
        together = sum(span.duration for span in self._spans) / waited
        return together >= TOGETHER and sum(self.turns.values()) >= (1 - IDLE) * waited
