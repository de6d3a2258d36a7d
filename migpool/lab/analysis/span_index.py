"""One side's spans, arranged so that a walk along the critical path finds each of its steps by bisection."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from operator import attrgetter, itemgetter
from typing import Generic, TypeVar

from migpool.core.effects import Wait
from migpool.core.trace import Span
from migpool.device import Side
from migpool.lab.analysis.kinds import JOB_WAITS, OWN_WAITS, RECEIVER_WAITS
from migpool.lab.analysis.page_jobs import page_jobs_of
from migpool.migration.report import SideReport

_BEGIN = attrgetter("begin")
_END = itemgetter(0)


@dataclass(frozen=True, slots=True)
class Stretch:
    """A time in which one device had a thread, or the big lock. ``begin`` and ``end``: nanoseconds."""

    begin: int
    end: int
    slot: int


T = TypeVar("T", bound=Span | Stretch)


class Track(Generic[T]):
    """Spans, or stretches, that follow each other, to be walked backwards. Those without a duration are left out."""

    __slots__ = ("_ends", "spans")

    def __init__(self, spans: Iterable[T]) -> None:
        self.spans = sorted((span for span in spans if span.end > span.begin), key=lambda span: (span.end, span.begin))
        self._ends = [span.end for span in self.spans]

    def at(self, time: int) -> T | None:
        """The span that is going on at ``time``, else the one that ended last at or before it."""
        place = bisect_right(self._ends, time)
        if place < len(self.spans) and self.spans[place].begin < time:
            return self.spans[place]
        return self.spans[place - 1] if place else None

    def after(self, time: int) -> T | None:
        """The first span that ends after ``time``."""
        place = bisect_right(self._ends, time)
        return self.spans[place] if place < len(self.spans) else None

    def backwards(self, begin: int, end: int) -> Iterator[T]:
        """Those that overlap an interval, the last first."""
        place = bisect_left(self._ends, end)
        if place < len(self.spans) and self.spans[place].begin < end:
            place += 1
        for at in range(place - 1, -1, -1):
            if self._ends[at] <= begin:
                return
            yield self.spans[at]


class SideIndex:
    """One side's spans.

    Arguments:
        begin, end: the interval of interest, on the common clock, in nanoseconds.
    """

    def __init__(self, report: SideReport, begin: int, end: int) -> None:
        self.side: Side = report.side
        self.names = [device.name for device in report.devices]
        with_job = {number for number, device in enumerate(report.devices) if device.has_job}
        self.page_jobs = page_jobs_of(report)
        self.main_thread = migration_thread(report)
        self.sends: dict[tuple[int, int], Span] = {}
        self.channels: dict[tuple[int, int], Span] = {}
        self.receives: dict[tuple[int, int], Span] = {}
        self.sections: dict[int, Span] = {}
        jobs: defaultdict[int, list[Span]] = defaultdict(list)
        loaded: defaultdict[int, list[Span]] = defaultdict(list)
        reads: defaultdict[int, list[Span]] = defaultdict(list)
        own: list[Span] = []
        queued: list[Span] = []
        holders: list[Stretch] = []
        worked: defaultdict[str, list[Span]] = defaultdict(list)
        receivers: set[str] = set()
        received: defaultdict[str, list[Span]] = defaultdict(list)
        to_sync: list[Span] = []
        held: Span | None = None
        for span in report.spans:
            if span.end < begin or span.begin > end:
                continue
            wait, slot, here = span.wait, span.slot, span.thread == self.main_thread
            if wait is Wait.RECEIVE:
                self.receives[slot, span.index] = span
                received[span.thread].append(span)
                receivers.add(span.thread)
            elif wait is Wait.CHANNEL:
                self.channels[slot, span.index] = span
            elif wait in JOB_WAITS:
                if here:
                    own.append(span)
                if slot in with_job:
                    jobs[slot].append(span)
                    if wait is Wait.SEND:
                        self.sends[slot, span.index] = span
                    elif wait is Wait.READ:
                        reads[slot].append(span)
                    elif wait is Wait.LOADED:
                        loaded[slot].append(span)
                    elif wait is Wait.HOLD and (held is None or span.end > held.end):
                        held = span
                    elif wait is Wait.QUEUED and not here:
                        queued.append(span)
                if wait is not Wait.QUEUED:
                    worked[span.thread].append(span)
                    if wait in (Wait.SAVE_CONFIG, Wait.LOAD_CONFIG):
                        holders.append(Stretch(span.begin, span.end, slot))
            elif wait is Wait.SYNC and not here:
                to_sync.append(span)
            elif wait is Wait.SYNC or (wait in OWN_WAITS and (here or _is_own(span))):
                own.append(span)
                if wait in (Wait.SECTION, Wait.SYNC):
                    self.sections[slot] = span
        self.receivers = frozenset(receivers)
        self._received = {thread: Track(spans) for thread, spans in received.items()}
        self._to_sync = sorted(to_sync, key=_BEGIN)
        self.held = held
        # A thread that loads held configs one after the other by itself works all the time: none of it is queueing.
        self.own = Track(span for span in own if span.wait is not Wait.QUEUED or not self.was_held(span))
        self.jobs = {slot: Track(spans) for slot, spans in jobs.items()}
        self.reads = {slot: Track(spans) for slot, spans in reads.items()}
        self.loaded = {slot: Track(spans) for slot, spans in loaded.items()}
        self.holders = Track(holders)
        self._busy = {
            thread: Track(_pieces(spans) if thread in receivers else _turns(spans)) for thread, spans in worked.items()
        }
        self._submitted = sorted(
            (span for span in queued if not self.was_held(span)), key=lambda span: (span.begin, span.end)
        )
        self._sent = sorted((span.end, span.slot) for span in self.sends.values())
        self._job_ends = sorted((track.spans[-1].end, slot) for slot, track in self.jobs.items() if track.spans)

    def name(self, slot: int) -> str:
        """The device's name; empty where a span is about none."""
        return self.names[slot] if 0 <= slot < len(self.names) else ""

    def was_held(self, queued: Span) -> bool:
        """Whether a QUEUED span is of a config that had been held: the job that held the last one submitted it."""
        return self.held is not None and queued.begin >= self.held.begin

    def busy(self, thread: str, begin: int, end: int) -> Iterator[Stretch]:
        """When jobs kept ``thread`` within an interval, the last first. A stretch is one device's."""
        track = self._busy.get(thread)
        return iter(()) if track is None else track.backwards(begin, end)

    def received_on(self, thread: str, time: int) -> Span | None:
        """What a channel's thread had received last at or before ``time``."""
        track = self._received.get(thread)
        found = None if track is None else track.at(time)
        return found if found is not None and found.end <= time else None

    def came_to_sync(self, begin: int, end: int) -> Span | None:
        """The channel that came last to its SYNC within an interval: its wait for the others."""
        place = bisect_right(self._to_sync, end, key=_BEGIN)
        return self._to_sync[place - 1] if place and self._to_sync[place - 1].begin > begin else None

    def submitted(self, time: int) -> Span | None:
        """The QUEUED span of the job that was submitted last before ``time`` and taken up by another thread."""
        place = bisect_left(self._submitted, time, key=_BEGIN)
        return self._submitted[place - 1] if place else None

    def gave_way(self, time: int) -> str:
        """The device whose chunk had gone into its channel last at or before ``time``; empty if there is none."""
        place = bisect_right(self._sent, time, key=_END)
        return self.name(self._sent[place - 1][1]) if place else ""

    def job_ended(self, time: int) -> tuple[int, int] | None:
        """When the job ended that ended last at or before ``time``, and its slot."""
        place = bisect_right(self._job_ends, time, key=_END)
        return self._job_ends[place - 1] if place else None


def covered(spans: Iterable[tuple[int, int]]) -> int:
    """For how long at least one of some intervals was going on."""
    whole = until = 0
    for begin, end in sorted(spans):
        whole += max(0, end - max(begin, until))
        until = max(until, end)
    return whole


def migration_thread(report: SideReport) -> str:
    """The name of the thread that ran the migration itself, from the spans that only it can leave; empty if unknown."""
    names = Counter(span.thread for span in report.spans if _is_own(span))
    return names.most_common(1)[0][0] if names else ""


def _is_own(span: Span) -> bool:
    """Whether only the migration's own thread can have left it: a job may take the config that another one kept."""
    return span.wait in OWN_WAITS and (span.wait is not Wait.JOIN or span.slot < 0)


def _pieces(spans: list[Span]) -> Iterator[Stretch]:
    """What kept a channel's thread, which goes back to its channel whenever the next chunk is not here yet."""
    return (Stretch(span.begin, span.end, span.slot) for span in spans if span.wait in RECEIVER_WAITS)


def _turns(spans: list[Span]) -> Iterator[Stretch]:
    """What kept any other thread: a job has it from its first wait to its last, whatever it waits for."""
    spans.sort(key=lambda span: (span.begin, span.end))
    begin, end, slot = 0, 0, -2
    for span in spans:
        if span.slot == slot:
            end = max(end, span.end)
            continue
        if slot != -2:
            yield Stretch(begin, end, slot)
        begin, end, slot = span.begin, span.end, span.slot
    if slot != -2:
        yield Stretch(begin, end, slot)
