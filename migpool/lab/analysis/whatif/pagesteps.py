"""The steps of the memory's jobs: one round, from which whichever job is free takes the next packet.

Which job takes a packet is not in its nature, so it is not kept: a job that has a thread is a place for a packet, and
the packets take places in the order in which they were taken. With more threads they are taken by more jobs at once.
A job that the thread of another one took up afterwards waits for that (``plan.py``), which may leave it nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from migpool.core.effects import Wait
from migpool.core.trace import Span
from migpool.lab.analysis.whatif.jobsteps import JobSteps
from migpool.lab.analysis.whatif.plan import PAGE_JOBS, Plan
from migpool.lab.analysis.whatif.recorded import RecordedJob
from migpool.lab.analysis.whatif.schedule import Step


class PageSteps:
    """Makes them."""

    def __init__(self, plan: Plan, jobs: JobSteps) -> None:
        self._plan = plan
        self._jobs = jobs

    def round(self, jobs: Sequence[RecordedJob]) -> None:
        """All of a round."""
        plan = self._plan
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
            sent = self._jobs.sending(Step("send", send.slot, causes=[looked]), send, scan.end)
            plan.add(Step("own", send.slot, causes=[sent], gives=PAGE_JOBS))
        for job, delay, work in last:
            begun = plan.begun["source", job.slot]
            ended = plan.add(Step("own", job.slot, causes=[begun, *taken], takes=PAGE_JOBS))
            found = plan.add(Step("scan", job.slot, causes=[ended], delay=delay, work=work))
            plan.steps[plan.done["source", job.slot]].causes.append(found)
