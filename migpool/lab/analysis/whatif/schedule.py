"""Plays steps against the clock: each begins when what it waits for has ended and what it needs is free.

Guarantees:

1. A step begins at the earliest moment at which all its causes have ended and its resource has a place for it.
2. Who asked for a resource first has it first; of those that ask at one moment, the one whose causes ended first.
3. Nothing is random: the same steps end at the same times.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush


class Unplayable(Exception):
    """Some steps wait for each other for ever: what was recorded is not whole."""


@dataclass(slots=True)
class Step:
    """Something that takes time. Times are in nanoseconds.

    Arguments:
        part: what it is: "read", "send", "own" ...; what can be made free goes by it.
        slot: the device that it is for, -1 for none.
        causes: the steps that must have ended before, by their number.
        room: the same, but only as long as the destination's memory is bounded.
        carried: the same, but only as long as a job must wait for a thread.
        overtaken: the same, but only as long as channels are bounded.
        delay: what the thread needs by itself before it begins, once the causes have ended.
        lag: what the way through the network adds to that; may be negative, since a chunk is received while it is sent.
        work: how long it takes.
        takes: the resource that it takes before its work; empty for none.
        gives: the resource that it gives back after it.
    """

    part: str
    slot: int = -1
    causes: list[int] = field(default_factory=list)
    room: list[int] = field(default_factory=list)
    carried: list[int] = field(default_factory=list)
    overtaken: list[int] = field(default_factory=list)
    delay: int = 0
    lag: int = 0
    work: int = 0
    takes: str = ""
    gives: str = ""


def play(steps: Sequence[Step], places: Mapping[str, int]) -> list[int]:
    """When each step ends, counted from a begin at 0.

    Arguments:
        steps: a step's number is its place here.
        places: how many may hold each resource at once; one that is not named here is never waited for.

    Raises:
        Unplayable: some steps never begin.
    """
    return _Playing(steps, places).whole()


class _Playing:
    def __init__(self, steps: Sequence[Step], places: Mapping[str, int]) -> None:
        self._steps = steps
        self._free = dict(places)
        self._waiting: defaultdict[str, deque[int]] = defaultdict(deque)
        self._after: list[list[int]] = [[] for _ in steps]
        self._missing = []
        for number, step in enumerate(steps):
            causes = {*step.causes, *step.room, *step.carried, *step.overtaken}
            self._missing.append(len(causes))
            for cause in causes:
                self._after[cause].append(number)
        self._ready = [0] * len(steps)
        self._ends = [-1] * len(steps)
        self._events: list[tuple[int, int, int, bool]] = []
        self._turn = 0

    def whole(self) -> list[int]:
        for number, missing in enumerate(self._missing):
            if not missing:
                self._ask_at(0, number)
        while self._events:
            now, _, number, ends = heappop(self._events)
            if ends:
                self._end(number, now)
            else:
                self._ask(number, now)
        if -1 in self._ends:
            raise Unplayable(f"{self._ends.count(-1)} of {len(self._steps)} steps never end")
        return self._ends

    def _push(self, time: int, number: int, ends: bool) -> None:
        self._turn += 1
        heappush(self._events, (time, self._turn, number, ends))

    def _ask_at(self, caused: int, number: int) -> None:
        step = self._steps[number]
        self._push(max(0, caused + step.lag) + step.delay, number, ends=False)

    def _ask(self, number: int, now: int) -> None:
        resource = self._steps[number].takes
        if resource in self._free:
            if not self._free[resource]:
                self._waiting[resource].append(number)
                return
            self._free[resource] -= 1
        self._push(now + self._steps[number].work, number, ends=True)

    def _end(self, number: int, now: int) -> None:
        self._ends[number] = now
        resource = self._steps[number].gives
        if resource in self._free:
            if self._waiting[resource]:
                next_ = self._waiting[resource].popleft()
                self._push(now + self._steps[next_].work, next_, ends=True)
            else:
                self._free[resource] += 1
        for after in self._after[number]:
            self._ready[after] = max(self._ready[after], now)
            self._missing[after] -= 1
            if not self._missing[after]:
                self._ask_at(self._ready[after], after)
