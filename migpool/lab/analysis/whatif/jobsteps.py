"""The steps of the jobs: what a save job and a load job do and wait for, and the way of each chunk between them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from operator import attrgetter

from migpool.core.effects import Wait
from migpool.core.trace import Span
from migpool.lab.analysis.kinds import WAITS
from migpool.lab.analysis.whatif.plan import CHANNELS, PAGE_JOBS, RECEIVER, Plan, Step, thread_of
from migpool.lab.analysis.whatif.recorded import RecordedJob, blocked_by, freed_before

NOTICED = 50_000
"""Nanoseconds from which on a wait for credit was one; less is the time of asking."""


class JobSteps:
    """Makes them."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._came: dict[str, list[Span]] = {name: [] for name in plan.receivers}
        for span in sorted(plan.destination.receives.values(), key=attrgetter("end")):
            if span.thread in self._came:
                self._came[span.thread].append(span)
        self._taken: dict[tuple[int, int], int] = {}
        self._came_ends = {name: [span.end for span in spans] for name, spans in self._came.items()}

    def saving(self, job: RecordedJob) -> None:
        """A job of the source, but for the memory's."""
        last, before = self._plan.woken(self._plan.source, job), job.taken
        reach = self._reach(job)
        asked = {span.index for span in job.spans if span.wait is Wait.CREDIT}
        for span in job.spans:
            step = Step("own", job.slot, causes=[last])
            rule = WAITS[span.wait].replay
            if rule == "lock":
                continue
            if rule == "turn":
                before = span.end
                continue
            if rule == "credit":
                self._credit(step, span, before, reach)
            elif rule == "send":
                if asked and span.index not in asked:  # an earlier credit was for several chunks
                    self._room(step, span, reach)
                last = self.sending(step, span, before)
                before = span.end
                continue
            else:
                self._plan.work(step, self._plan.source, span, before)
            last, before = self._plan.add(step), span.end
        self._plan.steps[self._plan.done["source", job.slot]].causes.append(last)

    def sending(self, step: Step, span: Span, before: int) -> int:
        """The way of a chunk, or of pages, into its channel; the number of the last step."""
        key = (span.slot, span.index)
        channel = self._plan.source.channels.get(key)
        begun = span.begin if channel is None else min(max(span.begin, channel.end), span.end)
        came = self._plan.destination.receives.get(key)
        blocked = 0 if came is None else blocked_by(self._plan.busy.get(came.thread, ()), begun, span.end)
        step.part = "own"
        step.delay = max(0, span.begin - before)
        step.takes = CHANNELS
        self._taken[key] = self._plan.add(step)
        number = self._plan.add(Step("send", span.slot, causes=[self._taken[key]], work=span.end - begun - blocked))
        if blocked and came is not None:
            # The socket is full: it goes on when the channel's thread has come back from loading.
            number = self._plan.add(
                Step("send", span.slot, causes=[number], takes=thread_of(came.thread), gives=thread_of(came.thread))
            )
            freed = self._plan.add(Step("own", span.slot, causes=[number], gives=CHANNELS))
            self._plan.sent[key] = freed
            return freed
        self._plan.steps[number].gives = CHANNELS
        self._plan.sent[key] = number
        return number

    def overtaking(self) -> None:
        """Who waits for a channel need not have the next one: who has just sent may take his again before."""
        sends, channels = self._plan.source.sends, self._plan.source.channels
        # A sender has its channel when it begins, or when its wait for one is over.
        got = sorted(
            (max(span.begin, channels[key].end if key in channels else 0), key)
            for key, span in sends.items()
            if key in self._taken
        )
        times = [time for time, _ in got]
        for key, wait in channels.items():
            if key not in self._taken:
                continue
            place = bisect_left(times, wait.end)
            for _, other in reversed(got[bisect_right(times, wait.begin) : place]):
                if sends[other].begin > wait.begin:
                    self._plan.steps[self._taken[key]].overtaken.append(self._taken[other])
                    break

    def _credit(self, step: Step, span: Span, before: int, reach: int) -> None:
        step.delay = max(0, span.begin - before)
        loads = self._plan.destination.loaded.get(span.slot, [])
        given = bisect_right([load.end for load in loads], span.end)
        if not given or loads[given - 1].end <= span.begin:
            # The word leaves before the span of giving room back ends.
            given = bisect_right([load.begin for load in loads], span.end)
        if span.duration > NOTICED and given and loads[given - 1].end > span.begin:
            load = loads[given - 1]
            word = Step("word", span.slot, causes=[self._plan.loads[load.slot, load.index]], lag=span.end - load.end)
            step.room.append(self._plan.add(word))
            return
        step.work = span.duration if span.duration <= NOTICED else 0
        self._room(step, span, reach)
        if span.duration > NOTICED:
            step.lag = span.duration

    def _room(self, step: Step, span: Span, reach: int) -> None:
        """What must have been loaded for the destination to have room for the chunk of ``span``."""
        needed = self._plan.loads.get((span.slot, span.index - reach - 1))
        if needed is not None:
            step.room.append(needed)

    def _reach(self, job: RecordedJob) -> int:
        """How many chunks the source was seen to be ahead of what had been loaded, at the most."""
        ends = [load.end for load in self._plan.destination.loaded.get(job.device, [])]
        known = [(span.index, span.end) for span in job.spans if span.wait is Wait.CREDIT]
        known += [(span.index, span.begin) for span in job.spans if span.wait is Wait.SEND]
        return max((index - bisect_left(ends, time) for index, time in known), default=0)

    def loading(self, job: RecordedJob) -> None:
        """A job of the destination."""
        last, before = self._plan.woken(self._plan.destination, job), job.taken
        for span in job.spans:
            key = (span.slot, span.index)
            rule = WAITS[span.wait].replay
            if rule == "lock":
                continue
            if rule == "starved":
                came = self._plan.destination.receives.get(key)
                if came is not None:
                    step = Step("own", span.slot, causes=[last, self._plan.arrivals[key]])
                    before = max(before, min(came.end, span.end))
                    # A job without a thread, left although its chunk is here, is carried on by who brings a later one.
                    carrier = self._carrier(span, came)
                    if carrier is not None:
                        step.carried.append(self._plan.arrivals[carrier.slot, carrier.index])
                        before = max(before, carrier.end)
                    last = self._plan.add(step)
                continue
            if rule == "order":
                awaited = self._plan.loaded_before(span)
                if awaited is not None:
                    before = max(before, span.end)
                    last = self._plan.add(Step("own", span.slot, causes=[last, awaited]))
                continue
            if rule == "loaded":
                number = self._plan.loads[key]
            elif rule == "hold":
                number = self._plan.held.get(span.slot, -1)
            elif rule == "config":
                number = self._plan.configs[span.slot]
            else:
                number = self._plan.add(Step("own", span.slot))
            step = self._plan.steps[number]
            step.causes.append(last)
            if rule == "config" and self._plan.held:
                step.causes += self._plan.held.values()
                before = max(before, self._plan.all_held)
            self._plan.work(step, self._plan.destination, span, before)
            last, before = number, span.end
            if rule == "hold":
                # The job ends here; its config is loaded when all have come so far, and keeps no thread until then.
                done = self._plan.steps[self._plan.done["destination", job.slot]]
                self._plan.add(Step("end", job.slot, causes=[last], gives=done.gives))
                done.gives = ""
        self._plan.steps[self._plan.done["destination", job.slot]].causes.append(last)

    def _carrier(self, starved: Span, came: Span) -> Span | None:
        """What a channel's thread received just before it carried on a job whose chunk had ``come`` earlier."""
        if starved.thread not in self._plan.receivers:
            return None
        place = bisect_right(self._came_ends[starved.thread], starved.end)
        last = self._came[starved.thread][place - 1] if place else None
        return last if last is not None and last.slot == starved.slot and last.end > came.end else None

    def arriving(self) -> None:
        """What came at the destination, each after it was sent."""
        before: dict[str, int] = {}
        for key, came in sorted(self._plan.destination.receives.items(), key=lambda pair: pair[1].end):
            step = self._plan.steps[self._plan.arrivals[key]]
            sent = self._plan.source.sends.get(key)
            if sent is None:
                step.delay = came.end
                continue
            step.causes.append(self._plan.sent[key])
            if came.thread in self._plan.receivers:
                step.takes = step.gives = thread_of(came.thread)
                free = freed_before(self._plan.busy[came.thread], came.end)
            else:
                # One channel's chunks are received one after the other.
                step.takes = step.gives = RECEIVER + came.thread
                self._plan.places[RECEIVER + came.thread] = 1
                free = before.get(came.thread, 0)
                before[came.thread] = came.end
            # It is received while it is sent: the way may end a little before the sending does.
            step.lag = max(sent.begin - sent.end, came.end - max(sent.end, free))
            if came.thread not in self._plan.receivers:
                step.work = min(max(0, step.lag), came.duration)
                step.lag -= step.work


def page_steps(plan: Plan, steps: JobSteps, jobs: Sequence[RecordedJob]) -> None:
    """Make the steps of the memory's jobs: one round, from which whichever job is free takes the next packet.

    Which job takes a packet is not in its nature, so it is not kept: a job that has a thread is a place for a packet,
    and the packets take places in the order in which they were taken. With more threads they are taken by more jobs at
    once. A job that the thread of another one took up afterwards waits for that (``plan.py``), which may leave it
    nothing.
    """
    plan.places[PAGE_JOBS] = 0
    packets: list[tuple[Span, Span, int]] = []
    last: list[tuple[RecordedJob, int, int]] = []
    for job in jobs:
        if not job.spans:
            plan.steps[plan.done["source", job.slot]].causes.append(plan.begun["source", job.slot])
            continue
        plan.steps[plan.woken(plan.source, job)].gives = PAGE_JOBS
        before, scan = job.taken, None
        scanned_after = before
        for span in job.spans:
            if span.wait is Wait.SCAN:
                scan, scanned_after = span, before
            elif span.wait is Wait.SEND and scan is not None:
                packets.append((scan, span, scanned_after))
                scan = None
            before = span.end
        # The last look finds nothing: the round is over.
        work = 0 if scan is None else scan.duration
        delay = 0 if scan is None else max(0, scan.begin - scanned_after)
        last.append((job, delay, work))
    taken = []
    for scan, send, before in sorted(packets, key=lambda packet: packet[0].begin):
        taken.append(plan.add(Step("own", send.slot, takes=PAGE_JOBS)))
        delay = max(0, scan.begin - before)
        looked = plan.add(Step("scan", send.slot, causes=[taken[-1]], delay=delay, work=scan.duration))
        sent = steps.sending(Step("send", send.slot, causes=[looked]), send, scan.end)
        plan.add(Step("own", send.slot, causes=[sent], gives=PAGE_JOBS))
    for job, delay, work in last:
        begun = plan.begun["source", job.slot]
        ended = plan.add(Step("own", job.slot, causes=[begun, *taken], takes=PAGE_JOBS))
        found = plan.add(Step("scan", job.slot, causes=[ended], delay=delay, work=work))
        plan.steps[plan.done["source", job.slot]].causes.append(found)
