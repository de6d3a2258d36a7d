"""Where a walk along a critical path stands, how it moves, and the links that it leaves behind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from migpool.core.trace import Span
from migpool.device import Side
from migpool.lab.analysis.span_index import SideIndex, Stretch, Track

OWN = -1
"""The migration's own thread, in place of a slot."""

NOTHING: Track[Span] = Track(())

Actor: TypeAlias = tuple[Side, int]


@dataclass(frozen=True, slots=True)
class Link:
    """One stretch of the critical path.

    Attributes:
        begin, end: CLOCK_MONOTONIC of the source in nanoseconds.
        kind: one of ``kinds.KINDS``.
        side: where the waiting was.
        device, thread: their names; empty for none, or if it is unknown.
        index: the chunk, -1 for none.
        behind: for "lock", "queued" and "channel" the device that was waited for: the one that held the lock, that had
            the thread, whose chunk was sent last before a channel was idle. Empty if there was none, only a thread to
            wake.
    """

    begin: int
    end: int
    kind: str
    side: Side
    device: str = ""
    thread: str = ""
    index: int = -1
    behind: str = ""

    @property
    def duration(self) -> int:
        """Nanoseconds."""
        return self.end - self.begin


class PathWalk(ABC):
    """A walk back in time; what a step is, who derives from it says.

    Arguments:
        begin, end: the interval, in nanoseconds; the walk begins at its end, on the destination's own thread.
    """

    def __init__(self, source: SideIndex, destination: SideIndex, begin: int, end: int) -> None:
        self._source = source
        self._destination = destination
        self._floor = begin
        self.now = end
        self.links: list[Link] = []
        self._what: tuple[str, Side, str, str, int, str] | None = None
        self._end = end
        self._visited: set[Actor] = set()
        self._go(destination, OWN)

    def whole(self) -> list[Link]:
        """Walk to the begin; the links in time order."""
        while self.now > self._floor:
            self.step()
        self._close()
        self.links.reverse()
        return self.links

    @abstractmethod
    def step(self) -> None:
        """Take one step back in time, or to another actor."""

    def _go(self, index: SideIndex, slot: int) -> bool:
        """Stand on another actor, unless the walk has been there at this very moment."""
        actor = (index.side, slot)
        if actor in self._visited:
            return False
        self._visited.add(actor)
        self._index = index
        self._slot = slot
        self._track = index.own if slot == OWN else index.jobs.get(slot, NOTHING)
        return True

    def _spend(self, begin: int, kind: str, span: Span | None, behind: str = "", thread: str = "") -> None:
        """Go back to ``begin``: the time from there on was of ``kind``. A ``begin`` in the future changes nothing."""
        begin = max(begin, self._floor)
        if begin >= self.now:
            return
        index = self._index
        slot, chunk = self._slot, -1
        if span is not None:
            slot, chunk, thread = span.slot, span.index, span.thread
        what = (kind, index.side, index.name(slot), thread, chunk, behind)
        if what != self._what:
            self._close()
            self._what, self._end = what, self.now
        self.now = begin
        self._visited = {(index.side, self._slot)}

    def _close(self) -> None:
        if self._what is not None:
            self.links.append(Link(self.now, self._end, *self._what))
            self._what = None

    def _behind(self, kind: str, span: Span, turns: Iterable[Stretch]) -> bool:
        """Go back through ``turns``, the last one first, as far as ``span`` reaches.

        Returns:
            Whether the walk has gone over to one of them: a job of the memory that is queued behind another one of its
            round would only have taken some of the same packets, so it is the other's work that was waited for.
        """
        of_round = span.slot in self._index.page_jobs
        for turn in turns:
            if of_round and turn.slot in self._index.page_jobs:
                self._spend(turn.end, kind, span)
                if self._go(self._index, turn.slot):
                    return True
            self._spend(max(turn.begin, span.begin), kind, span, self._index.name(turn.slot))
        return False
