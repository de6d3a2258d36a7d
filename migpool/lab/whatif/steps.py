"""From a recorded downtime to steps that can be played again: see ``resources.py`` for what is done with them.

Each span of work becomes a step as long as it was. A wait becomes none: what was waited for becomes a cause of the step
behind it, or the resource that this step takes. What is left between the end of the last cause and the begin of the
step, as recorded, is the step's delay (a thread computed, or had to be woken), or, for a chunk, its way through the
network. So steps that are played with every resource as it was end about when they were recorded to end.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from dataclasses import dataclass

from migpool.effects import Wait
from migpool.lab.whatif.names import CHANNELS, RECEIVER, lock_of, thread_of, turns_of, workers_of
from migpool.lab.whatif.recorded import Recorded, RecordedJob, after, blocked_by, events, freed_before, loading_on
from migpool.lab.whatif.schedule import Step
from migpool.trace import Span

__all__ = ["Recording", "recording_of"]

NOTICED = 50_000
"""Nanoseconds from which on a wait for credit was one; less is the time of asking."""
BLOCKED = 200_000
"""Nanoseconds from which on a job that waited for a thread kept its submitter waiting."""


@dataclass(frozen=True, slots=True)
class Recording:
    """A downtime as steps.

    Attributes:
        steps: the last one ends when the machine runs.
        places: how many may hold each resource at once.
    """

    steps: list[Step]
    places: dict[str, int]


def recording_of(
    source: Recorded, destination: Recorded, end: int, turns: Mapping[Wait, Mapping[tuple[int, int], int]]
) -> Recording:
    """Turn what both sides recorded into steps.

    Arguments:
        source: the source's spans.
        destination: the destination's, on the same clock.
        end: when the machine ran, in nanoseconds from the begin of the downtime.
        turns: how long a read or a write took by itself, where devices took turns.
    """
    made = _Making(source, destination, end, turns)
    made.all()
    return Recording(made.steps, made.places)


class _Making:
    def __init__(
        self, source: Recorded, destination: Recorded, end: int, turns: Mapping[Wait, Mapping[tuple[int, int], int]]
    ) -> None:
        self._source = source
        self._destination = destination
        self._end = end
        self._turns = turns
        self.steps: list[Step] = []
        self.places: dict[str, int] = {lock_of("source"): 1, lock_of("destination"): 1}
        senders = {span.thread for span in destination.receives.values()}
        if senders:
            self.places[CHANNELS] = len(senders)
        # Where the channels' threads also load, a chunk can lie in its socket behind another device's.
        loaders = {span.thread for job in destination.jobs.values() for span in job.spans if span.wait is Wait.WRITE}
        self._receivers = senders & loaders
        self.places |= {thread_of(name): 1 for name in self._receivers}
        for wait, known in turns.items():
            if known:
                self.places[turns_of(wait)] = 1
        self._begun: dict[tuple[str, int], int] = {}
        self._done: dict[tuple[str, int], int] = {}
        self._submits: dict[tuple[str, int], int] = {}
        self._arrivals: dict[tuple[int, int], int] = {}
        self._sent: dict[tuple[int, int], int] = {}
        self._loads: dict[tuple[int, int], int] = {}
        self._sections: dict[int, int] = {}
        self._busy = loading_on(destination, self._receivers)
        self._asked = {
            (side.side, span.slot, span.index): span.begin
            for side in (source, destination)
            for span in (*side.own, *(span for job in side.jobs.values() for span in job.spans))
            if span.wait is Wait.LOCK
        }
        self._submitted = (-1, 0)
        self._came: dict[str, list[Span]] = {name: [] for name in self._receivers}
        for span in sorted(destination.receives.values(), key=lambda span: span.end):
            if span.thread in self._came:
                self._came[span.thread].append(span)
        self._came_ends = {name: [span.end for span in spans] for name, spans in self._came.items()}

    def all(self) -> None:
        """Make every step; those that others wait for are numbered first, and get their causes later."""
        for side in (self._source, self._destination):
            self._count_workers(side)
            for slot in side.jobs:
                self._begun[side.side, slot] = self._add(Step("begin", slot, takes=self._workers(side, slot)))
                self._done[side.side, slot] = self._add(Step("end", slot, gives=self._workers(side, slot)))
        holds = [span for job in self._destination.jobs.values() for span in job.spans if span.wait is Wait.HOLD]
        self._held = {span.slot: self._add(Step("own", span.slot)) for span in holds}
        self._all_held = max((span.end for span in holds), default=0)
        for key in self._destination.receives:
            self._arrivals[key] = self._add(Step("arrive", key[0]))
        for slot, spans in self._destination.loaded.items():
            for span in spans:
                self._loads[slot, span.index] = self._add(Step("own", slot, work=span.duration))
        joined = self._own_at_source()
        last = self._own_at_destination(joined)
        for job in self._source.jobs.values():
            self._saving(job)
        for job in self._destination.jobs.values():
            self._loading(job)
        self._arriving()
        ended = max((span.end for span in self._destination.own), default=0)
        self._add(Step("own", causes=[last], delay=max(0, self._end - ended)))

    def _add(self, step: Step) -> int:
        self.steps.append(step)
        return len(self.steps) - 1

    # ------------------------------------------------------------------ threads

    def _count_workers(self, side: Recorded) -> None:
        threads = set().union(*(job.threads for job in side.jobs.values())) if side.jobs else set()
        if threads and not threads & self._receivers and len(threads) < len(side.jobs) and _keep_threads(side):
            self.places[workers_of(side.side)] = len(threads)

    def _workers(self, side: Recorded, slot: int) -> str:
        resource = workers_of(side.side)
        return resource if resource in self.places and side.jobs[slot].spans else ""

    # ------------------------------------------------------------------ the migration's own threads

    def _own_at_source(self) -> int:
        side = self._source
        last, before = -1, 0
        for event in events(side):
            if isinstance(event, RecordedJob):
                last, before = self._submitted = self._submit(side, event, last, before)
                continue
            step = Step("own", event.slot, causes=[] if last < 0 else [last])
            if event.wait is Wait.JOIN and event.slot < 0:
                self._join(step, side, event, before)
            else:
                self._work(step, side, event, before)
            last, before = self._add(step), event.end
            if event.wait is Wait.SECTION:
                self._sections[event.slot] = last
        return last

    def _own_at_destination(self, joined: int) -> int:
        """The steps of the destination's own thread; the last of them."""
        side = self._destination
        last = self._stopped_step()
        stops = [span.end for span in self._source.own if span.wait is Wait.STOP]
        before = max(stops, default=0)
        sections = {span.slot: span.end for span in self._source.own if span.wait is Wait.SECTION}
        drained = max((span.end for span in self._source.own), default=0)
        for event in events(side):
            if isinstance(event, RecordedJob):
                last, before = self._submit(side, event, last, before)
                continue
            step = Step("own", event.slot, causes=[last])
            if event.wait is Wait.JOIN and event.slot < 0:
                if joined >= 0 and drained <= event.end:
                    # What follows in the main channel is written when the source has joined its jobs.
                    step.causes.append(joined)
                    before = max(before, drained)
                self._join(step, side, event, before)
            else:
                written = self._written(event, sections)
                if written is not None:
                    number, at = written
                    step.causes.append(number)
                    before = max(before, at)
                self._work(step, side, event, before)
            last, before = self._add(step), event.end
        return last

    def _join(self, step: Step, side: Recorded, event: Span, before: int) -> None:
        """All jobs of the side have ended."""
        step.causes += [number for (where, _), number in self._done.items() if where == side.side]
        ended = max((job.end for job in side.jobs.values()), default=0)
        step.delay = max(0, event.end - max(before, ended))

    def _written(self, event: Span, sections: Mapping[int, int]) -> tuple[int, int] | None:
        """The step in which the source wrote what ``event`` takes up, and when that ended."""
        if event.wait is Wait.LOAD_CONFIG and event.slot in sections:
            return self._sections[event.slot], sections[event.slot]
        number, at = self._submitted
        # The ends of the iterable devices' sections are written when all their jobs have been submitted.
        return (number, at) if event.wait is Wait.SETUP and 0 < at <= event.begin else None

    def _stopped_step(self) -> int:
        stops = [number for number, step in enumerate(self.steps) if step.part == "stop"]
        return stops[-1] if stops else self._add(Step("own"))

    def _submit(self, side: Recorded, job: RecordedJob, last: int, before: int) -> tuple[int, int]:
        """The submission of a job, and what its submitter waited for; the last step and when it ended."""
        begun, done = self._begun[side.side, job.slot], self._done[side.side, job.slot]
        step = Step("own", job.slot, causes=[] if last < 0 else [last], delay=max(0, job.submitted - before))
        number = self._add(step)
        self.steps[begun].causes.append(number)
        if job.threads == {side.main}:
            # The submitter runs the job itself; if threads were no matter it would not.
            resource = workers_of(side.side)
            if resource not in self.places:
                self.places[resource] = 1
                for step_number in (begun, done):
                    at = self.steps[step_number]
                    at.takes, at.gives = (resource, "") if step_number == begun else ("", resource)
            return self._add(Step("own", job.slot, causes=[begun], takes=resource, gives=resource)), job.end
        next_ = after(side, job.submitted)
        if job.taken - job.submitted > BLOCKED and job.taken <= next_:
            return begun, job.taken
        return number, job.submitted

    # ------------------------------------------------------------------ the jobs

    def _saving(self, job: RecordedJob) -> None:
        last, before = self._begun["source", job.slot], job.taken
        reach = self._reach(job)
        for span in job.spans:
            step = Step("own", job.slot, causes=[last])
            if span.wait is Wait.LOCK:
                continue
            if span.wait is Wait.CREDIT:
                self._credit(step, span, before, reach)
            elif span.wait is Wait.SEND:
                last = self._sending(step, span, before)
                before = span.end
                continue
            else:
                self._work(step, self._source, span, before)
            last, before = self._add(step), span.end
        self.steps[self._done["source", job.slot]].causes.append(last)

    def _sending(self, step: Step, span: Span, before: int) -> int:
        key = (span.slot, span.index)
        channel = self._source.channels.get(key)
        begun = span.begin if channel is None else min(max(span.begin, channel.end), span.end)
        came = self._destination.receives.get(key)
        blocked = 0 if came is None else blocked_by(self._busy.get(came.thread, ()), begun, span.end)
        step.part = "send"
        step.delay = max(0, span.begin - before)
        step.work = span.end - begun - blocked
        step.takes = CHANNELS
        number = self._add(step)
        if blocked and came is not None:
            # The socket is full: it goes on when the channel's thread has come back from loading.
            number = self._add(
                Step("send", span.slot, causes=[number], takes=thread_of(came.thread), gives=thread_of(came.thread))
            )
            freed = self._add(Step("own", span.slot, causes=[number], gives=CHANNELS))
            self._sent[key] = freed
            return freed
        step.gives = CHANNELS
        self._sent[key] = number
        return number

    def _credit(self, step: Step, span: Span, before: int, reach: int) -> None:
        step.delay = max(0, span.begin - before)
        loads = self._destination.loaded.get(span.slot, [])
        given = bisect_right([load.end for load in loads], span.end)
        if span.duration > NOTICED and given and loads[given - 1].end > span.begin:
            load = loads[given - 1]
            word = Step("word", span.slot, causes=[self._loads[load.slot, load.index]], lag=span.end - load.end)
            step.room.append(self._add(word))
            return
        step.work = span.duration if span.duration <= NOTICED else 0
        needed = self._loads.get((span.slot, span.index - reach - 1))
        if needed is not None:
            step.room.append(needed)
        if span.duration > NOTICED:
            step.lag = span.duration

    def _reach(self, job: RecordedJob) -> int:
        """How many chunks the source was seen to be ahead of what had been loaded, at the most."""
        ends = [load.end for load in self._destination.loaded.get(job.slot, [])]
        ahead = [span.index - bisect_left(ends, span.end) for span in job.spans if span.wait is Wait.CREDIT]
        return max(ahead, default=0)

    def _loading(self, job: RecordedJob) -> None:
        last, before = self._begun["destination", job.slot], job.taken
        for span in job.spans:
            key = (span.slot, span.index)
            if span.wait is Wait.LOCK:
                continue
            if span.wait is Wait.STARVED:
                came = self._destination.receives.get(key)
                if came is not None:
                    step = Step("own", span.slot, causes=[last, self._arrivals[key]])
                    before = max(before, min(came.end, span.end))
                    # A job without a thread, left although its chunk is here, is carried on by who brings a later one.
                    carrier = self._carrier(span, came)
                    if carrier is not None:
                        step.carried.append(self._arrivals[carrier.slot, carrier.index])
                        before = max(before, carrier.end)
                    last = self._add(step)
                continue
            number = self._loads[key] if span.wait is Wait.LOADED else self._held.get(span.slot, -1)
            if span.wait not in (Wait.LOADED, Wait.HOLD):
                number = self._add(Step("own", span.slot))
            step = self.steps[number]
            step.causes.append(last)
            if span.wait is Wait.LOAD_CONFIG and self._held:
                step.causes += self._held.values()
                before = max(before, self._all_held)
            self._work(step, self._destination, span, before)
            last, before = number, span.end
            if span.wait is Wait.HOLD:
                # The job ends here; its config is loaded when all have come so far, and keeps no thread until then.
                done = self.steps[self._done["destination", job.slot]]
                self._add(Step("end", job.slot, causes=[last], gives=done.gives))
                done.gives = ""
        self.steps[self._done["destination", job.slot]].causes.append(last)

    def _carrier(self, starved: Span, came: Span) -> Span | None:
        """What a channel's thread received just before it carried on a job whose chunk had ``come`` earlier."""
        if starved.thread not in self._receivers:
            return None
        place = bisect_right(self._came_ends[starved.thread], starved.end)
        last = self._came[starved.thread][place - 1] if place else None
        return last if last is not None and last.slot == starved.slot and last.end > came.end else None

    def _arriving(self) -> None:
        before: dict[str, int] = {}
        for key, came in sorted(self._destination.receives.items(), key=lambda pair: pair[1].end):
            step = self.steps[self._arrivals[key]]
            sent = self._source.sends.get(key)
            if sent is None:
                step.delay = came.end
                continue
            step.causes.append(self._sent[key])
            if came.thread in self._receivers:
                step.takes = step.gives = thread_of(came.thread)
                free = freed_before(self._busy[came.thread], came.end)
            else:
                # One channel's chunks are received one after the other.
                step.takes = step.gives = RECEIVER + came.thread
                self.places[RECEIVER + came.thread] = 1
                free = before.get(came.thread, 0)
                before[came.thread] = came.end
            # It is received while it is sent: the way may end a little before the sending does.
            step.lag = max(sent.begin - sent.end, came.end - max(sent.end, free))
            if came.thread not in self._receivers:
                step.work = min(max(0, step.lag), came.duration)
                step.lag -= step.work

    def _work(self, step: Step, side: Recorded, span: Span, before: int) -> None:
        """What a span of work becomes; ``before`` is when the last of its causes ended."""
        begin = span.begin
        step.work = span.duration
        step.slot = span.slot
        if span.wait in (Wait.SAVE_CONFIG, Wait.LOAD_CONFIG):
            step.part = "config"
            step.takes = step.gives = lock_of(side.side)
            # From its last step to the config's begin the job waited for the lock; the wait began at its own span.
            begin = self._asked.get((side.side, span.slot, span.index), begin)
        elif span.wait in (Wait.READ, Wait.WRITE):
            step.part = "read" if span.wait is Wait.READ else "write"
            turn = self._turns.get(span.wait, {}).get((span.slot, span.index))
            if turn is not None:
                step.work = turn
                step.takes = step.gives = turns_of(span.wait)
            elif span.thread in self._receivers:
                step.takes = step.gives = thread_of(span.thread)
        elif span.wait in (Wait.QUIESCE, Wait.STOP):
            step.part = "stop"
        elif span.wait in (Wait.WAKE, Wait.START):
            step.part = "start"
        elif span.wait is Wait.LOCK:
            step.part, step.work = "own", 0
        step.delay = max(0, begin - before)


def _keep_threads(side: Recorded) -> bool:
    """Whether each job keeps one thread from its begin to its end; those that are polled share theirs."""
    free: dict[str, int] = {}
    for job in sorted(side.jobs.values(), key=lambda job: job.taken):
        if not job.kept:
            continue
        if len(job.threads) > 1 or free.get(job.kept[0].thread, 0) > job.taken:
            return False
        free[job.kept[0].thread] = job.kept[-1].end
    return True
