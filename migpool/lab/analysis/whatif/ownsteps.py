"""The steps of the migration's own threads: stops and starts, submissions, sections, joins, the end of the memory."""

from __future__ import annotations

from collections.abc import Mapping

from migpool.core.effects import Wait
from migpool.core.trace import Span
from migpool.lab.analysis.whatif.plan import Plan, Step, workers_of
from migpool.lab.analysis.whatif.recorded import Recorded, RecordedJob, after, events

BLOCKED = 200_000
"""Nanoseconds from which on a job that waited for a thread kept its submitter waiting."""


class OwnSteps:
    """Makes them."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._sections: dict[int, int] = {}
        self._submitted = (-1, 0)
        self._synced = -1

    def at_source(self) -> int:
        """Those of the source; the number of the last one."""
        side = self._plan.source
        last, before = -1, 0
        for event in events(side):
            if isinstance(event, RecordedJob):
                last, before = self._submitted = self._submit(side, event, last, before)
                continue
            step = Step("own", event.slot, causes=[] if last < 0 else [last])
            if event.wait is Wait.JOIN and event.slot < 0:
                self._join(step, side, event, before)
            else:
                self._plan.work(step, side, event, before)
            last, before = self._plan.add(step), event.end
            if event.wait is Wait.SECTION:
                self._sections[event.slot] = last
            elif event.wait is Wait.SYNC:
                self._synced = last
        return last

    def at_destination(self, joined: int) -> int:
        """Those of the destination; the number of the last one. ``joined``: the source's last step."""
        plan = self._plan
        side = plan.destination
        last = max((number for number, step in enumerate(plan.steps) if step.part == "stop"), default=-1)
        if last < 0:
            last = plan.add(Step("own"))
        before = stopped = max((span.end for span in plan.source.own if span.wait is Wait.STOP), default=0)
        sections = {span.slot: span.end for span in plan.source.own if span.wait is Wait.SECTION}
        drained = max((span.end for span in plan.source.own), default=0)
        behind, read = -1, 0  # what was sent before the stop and is loaded after it
        for event in events(side):
            if isinstance(event, RecordedJob):
                if behind >= 0:
                    last, behind = plan.add(Step("own", causes=[last, behind])), -1
                last, before = self._submit(side, event, last, before)
                continue
            if event.wait is Wait.PRECOPIED:
                # It had been sent before the stop, which it does not wait for.
                step = Step("own", causes=[] if behind < 0 else [behind])
                plan.work(step, side, event, 0 if behind < 0 else read)
                behind, read = plan.add(step), event.end
                before = max(before, read)
                continue
            if event.end <= stopped:
                continue  # the end of a round from before the stop: it waits for nothing of this
            step = Step("own", event.slot, causes=[last, *([] if behind < 0 else [behind])])
            if event.wait is Wait.JOIN and event.slot < 0:
                if joined >= 0 and drained <= event.end:
                    # What follows in the main channel is written when the source has joined its jobs.
                    step.causes.append(joined)
                    before = max(before, drained)
                self._join(step, side, event, before)
            elif event.wait is Wait.SYNC:
                self._sync(step, event, before)
            else:
                written = self._written(event, sections)
                if written is not None:
                    number, at = written
                    step.causes.append(number)
                    before = max(before, at)
                plan.work(step, side, event, before)
            last, before = plan.add(step), event.end
        return last

    def _join(self, step: Step, side: Recorded, event: Span, before: int) -> None:
        """All jobs of the side that had been submitted have ended."""
        joined = [job for job in side.jobs.values() if job.submitted <= event.begin]
        step.causes += [self._plan.done[side.side, job.slot] for job in joined]
        ended = max((job.end for job in joined), default=0)
        step.delay = max(0, event.end - max(before, ended))

    def _sync(self, step: Step, event: Span, before: int) -> None:
        """The destination goes on when it has every page of the round, and the SYNCs behind them."""
        plan = self._plan
        said = [span.end for span in plan.source.own if span.wait is Wait.SYNC and span.end <= event.end]
        ends = [before, *said]
        if said:
            step.causes.append(self._synced)
        for key, came in plan.destination.receives.items():
            if came.end <= event.end:
                step.causes.append(plan.arrivals[key])
                ends.append(came.end)
        for key, number in plan.loads.items():
            loaded = plan.loaded_on_a_channel(key)
            if loaded is not None and loaded.end <= event.end:
                step.causes.append(number)
                ends.append(loaded.end)
        step.delay = max(0, event.end - max(ends))

    def _written(self, event: Span, sections: Mapping[int, int]) -> tuple[int, int] | None:
        """The step in which the source wrote what ``event`` takes up, and when that ended."""
        if event.wait is Wait.LOAD_CONFIG and event.slot in sections:
            return self._sections[event.slot], sections[event.slot]
        number, at = self._submitted
        # The ends of the iterable devices' sections are written when all their jobs have been submitted.
        return (number, at) if event.wait is Wait.SETUP and 0 < at <= event.begin else None

    def _submit(self, side: Recorded, job: RecordedJob, last: int, before: int) -> tuple[int, int]:
        """The submission of a job, and what its submitter waited for; the last step and when it ended."""
        plan = self._plan
        begun, done = plan.begun[side.side, job.slot], plan.done[side.side, job.slot]
        step = Step("own", job.slot, causes=[] if last < 0 else [last], delay=max(0, job.submitted - before))
        number = plan.add(step)
        plan.steps[begun].causes.append(number)
        if job.threads == {side.main}:
            # The submitter runs the job itself; if threads were no matter it would not.
            resource = workers_of(side.side)
            if resource not in plan.places:
                plan.places[resource] = 1
                for step_number in (begun, done):
                    at = plan.steps[step_number]
                    at.takes, at.gives = (resource, "") if step_number == begun else ("", resource)
            return plan.add(Step("own", job.slot, causes=[begun], takes=resource, gives=resource)), job.end
        next_ = after(side, job.submitted)
        if job.taken - job.submitted > BLOCKED and job.taken <= next_:
            return begun, job.taken
        return number, job.submitted
