"""One side's spans of a downtime, sorted by who left them: the jobs, the migration's own thread, the channels."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from operator import attrgetter

from migpool.core.effects import Wait
from migpool.core.trace import Span
from migpool.device import Side
from migpool.lab.analysis.kinds import JOB_WAITS, OWN_WAITS
from migpool.lab.analysis.page_jobs import page_jobs_of
from migpool.lab.analysis.span_index import migration_thread
from migpool.migration.report import SideReport

OF_OWN = (OWN_WAITS | JOB_WAITS | {Wait.SYNC}) - {Wait.QUEUED}


@dataclass(slots=True)
class RecordedJob:
    """The job of a device at one side.

    Attributes:
        submitted: when, in nanoseconds from the begin of the downtime.
        taken: when a thread took it up.
        spans: what it waited for, in order.
        woken: how long its thread took to begin or to wake, when it had nothing else to do.
    """

    slot: int
    submitted: int
    taken: int
    spans: list[Span] = field(default_factory=list)
    woken: int = 0

    @property
    def device(self) -> int:
        """The device's slot: of a device that several jobs save, the others have numbers of their own."""
        return self.spans[0].slot if self.spans else self.slot

    @property
    def kept(self) -> list[Span]:
        """What it did while it had a thread: all, or all until its config was held."""
        held = next((at + 1 for at, span in enumerate(self.spans) if span.wait is Wait.HOLD), len(self.spans))
        return self.spans[:held]

    @property
    def threads(self) -> set[str]:
        """Where it ran."""
        return {span.thread for span in self.kept}

    @property
    def end(self) -> int:
        return self.spans[-1].end if self.spans else self.taken


@dataclass(slots=True)
class Recorded:
    """One side. Times are nanoseconds from the begin of the downtime.

    Attributes:
        main: the name of the migration's own thread.
        jobs: by slot, in the order in which they were submitted.
        own: what the migration's own thread did besides jobs, in order.
        channels: the wait for an idle channel, by slot and chunk.
        sends, receives: by slot and chunk.
        loaded: by slot, when room was given back, in order.
        page_jobs: which of the jobs are the memory's.
        shared: the slots that several jobs save.
        later: those of them that a thread took up after another one, which is what it says by slot.
    """

    side: Side
    main: str
    jobs: dict[int, RecordedJob]
    own: list[Span]
    channels: dict[tuple[int, int], Span]
    sends: dict[tuple[int, int], Span]
    receives: dict[tuple[int, int], Span]
    loaded: dict[int, list[Span]]
    page_jobs: frozenset[int]
    later: dict[int, int] = field(default_factory=dict)
    shared: frozenset[int] = frozenset()


def recorded(report: SideReport, begin: int, end: int) -> Recorded:
    """Sort what a side recorded within a downtime; spans that reach over its ends are cut there.

    Arguments:
        begin, end: the downtime, on the common clock, in nanoseconds.
    """
    with_job = {number for number, device in enumerate(report.devices) if device.has_job}
    loaded: defaultdict[int, list[Span]] = defaultdict(list)
    found = Recorded(report.side, migration_thread(report), {}, [], {}, {}, {}, loaded, page_jobs_of(report))
    found.shared = frozenset(span.slot for span in report.spans if span.wait is Wait.TURN)
    shared: defaultdict[int, list[Span]] = defaultdict(list)
    queued: dict[int, Span] = {}
    waits: defaultdict[int, list[Span]] = defaultdict(list)
    for one in report.spans:
        if one.end < begin or one.begin > end:
            continue
        span = replace(one, begin=max(begin, one.begin) - begin, end=min(end, one.end) - begin)
        key = (span.slot, span.index)
        if span.wait is Wait.CHANNEL:
            found.channels[key] = span
        elif span.wait is Wait.RECEIVE:
            found.receives[key] = span
        elif span.wait in JOB_WAITS and span.slot in with_job:
            if span.slot in found.shared:
                shared[span.slot].append(span)
            elif span.wait is Wait.QUEUED:
                # A config that was held has a job of its own later: to the replay it is the end of the first.
                if span.slot not in queued or span.begin < queued[span.slot].begin:
                    queued[span.slot] = span
                continue
            else:
                waits[span.slot].append(span)
            if span.wait is Wait.SEND:
                found.sends[key] = span
            elif span.wait is Wait.LOADED:
                found.loaded[span.slot].append(span)
        elif span.thread == found.main and span.wait in OF_OWN:
            found.own.append(span)
    for slot, span in sorted(queued.items(), key=lambda pair: pair[1].begin):
        spans = sorted(waits[slot], key=lambda span: (span.begin, span.end))
        found.jobs[slot] = RecordedJob(slot, span.begin, span.end, spans)
    for slot in sorted(found.shared):
        _tell_apart(found, slot, shared[slot], first=max(len(report.devices), *found.jobs, 0) + 1)
    found.own.sort(key=lambda span: (span.begin, span.end))
    _see_threads(found)
    return found


def _tell_apart(found: Recorded, slot: int, spans: list[Span], first: int) -> None:
    """Make a job of each of those that saved one device; one has the device's own number, the others new ones.

    What a job does for one chunk has the chunk's index. Which chunks one job saved no span says, and it does not
    matter: each chunk is given to the job that had ended its last one most recently, on the same thread if there is
    one. A job that is said to have changed its thread would hide that there are fewer threads than jobs.
    """
    queued = sorted((span for span in spans if span.wait is Wait.QUEUED), key=lambda span: span.end)
    passes: defaultdict[tuple[int, bool], list[Span]] = defaultdict(list)
    for span in spans:
        if span.index >= 0:
            passes[span.index, span.wait in (Wait.TURN, Wait.READ)].append(span)
    sent = {index for index, reading in passes if reading}
    for index in sorted(sent):
        if any(span.wait is Wait.READ for span in passes[index, True]) and index + 1 in sent:
            passes[index, True] += passes.pop((index, False), [])
    lanes: list[list[Span]] = []
    for one in sorted(passes.values(), key=lambda one: min(span.begin for span in one)):
        one.sort(key=lambda span: (span.begin, span.end))
        free = [lane for lane in lanes if lane[-1].end <= one[0].begin]
        if free:
            max(free, key=lambda lane: (lane[-1].thread == one[0].thread, lane[-1].end)).extend(one)
        else:
            lanes.append(one)
    for number, (lane, wait) in enumerate(zip_longest(lanes, queued)):
        submitted, taken = (wait.begin, wait.end) if wait else (lane[0].begin, lane[0].begin)
        key = first + number if number else slot
        found.jobs[key] = RecordedJob(key, submitted, taken, lane or [])


def _see_threads(found: Recorded) -> None:
    """Of jobs that one thread took up one after the other."""
    before: dict[str, RecordedJob] = {}
    pages: dict[str, int] = {}
    for job in sorted(found.jobs.values(), key=attrgetter("taken")):
        if not job.kept:
            continue
        thread = job.kept[0].thread
        free = before[thread].kept[-1].end if thread in before else 0
        job.woken = max(0, job.taken - max(job.submitted, free))
        before[thread] = job
        if job.slot in found.page_jobs:
            if thread in pages:
                found.later[job.slot] = pages[thread]
            pages[thread] = job.slot


def events(side: Recorded) -> Iterator[RecordedJob | Span]:
    """What the migration's own thread did, in order: submissions, and its own spans but for waits for the lock."""
    found: list[tuple[int, int, RecordedJob | Span]] = [(job.submitted, 0, job) for job in side.jobs.values()]
    found += [(span.begin, 1, span) for span in side.own if span.wait is not Wait.LOCK]
    yield from (event for _, _, event in sorted(found, key=lambda event: event[:2]))


def after(side: Recorded, time: int) -> int:
    """When the migration's own thread was seen to do something next."""
    later = [job.submitted for job in side.jobs.values() if job.submitted > time]
    return min([*later, *(span.begin for span in side.own if span.begin > time)], default=time)


def loading_on(destination: Recorded, receivers: set[str]) -> dict[str, list[Span]]:
    """When the channels' threads loaded."""
    found: dict[str, list[Span]] = {name: [] for name in receivers}
    for job in destination.jobs.values():
        for span in job.spans:
            if span.thread in receivers and span.wait is Wait.WRITE:
                found[span.thread].append(span)
    for spans in found.values():
        spans.sort(key=lambda span: span.begin)
    return found


def blocked_by(spans: Sequence[Span], begin: int, end: int) -> int:
    """How much of an interval spans cover that end within it: a send that ends before had room in the socket.

    Arguments:
        spans: one after the other.
    """
    covered = 0
    for span in spans[bisect_right(spans, begin, key=attrgetter("end")) :]:
        if span.end > end:
            break
        covered += span.end - max(span.begin, begin)
    return covered


def freed_before(spans: Sequence[Span], time: int) -> int:
    """When the last of some spans ended that ended by ``time``; 0 if none did."""
    place = bisect_right(spans, time, key=attrgetter("end"))
    return spans[place - 1].end if place else 0
