"""From a recorded downtime to steps that can be played again: see ``resources.py`` for what is done with them.

Each span of work becomes a step as long as it was. A wait becomes none: what was waited for becomes a cause of the step
behind it, or the resource that this step takes. What is left between the end of the last cause and the begin of the
step, as recorded, is the step's delay (a thread computed, or had to be woken), or, for a chunk, its way through the
network. So steps that are played with every resource as it was end about when they were recorded to end.

The memory's packets (``jobsteps.py``) wait for a thread, a channel and their way like chunks, and for nothing else; no
job loads them, but the end of the round waits for them all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from migpool.core.effects import Wait
from migpool.lab.analysis.whatif.jobsteps import JobSteps, PageSteps
from migpool.lab.analysis.whatif.ownsteps import OwnSteps
from migpool.lab.analysis.whatif.plan import Plan
from migpool.lab.analysis.whatif.recorded import Recorded
from migpool.lab.analysis.whatif.schedule import Step


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
        end: when the machine ran, in nanoseconds from the begin of the downtime.
        turns: how long a read or a write took by itself, where devices took turns.
    """
    plan = Plan(source, destination, turns)
    own, jobs = OwnSteps(plan), JobSteps(plan)
    last = own.at_destination(own.at_source())
    pages = [job for slot, job in source.jobs.items() if slot in source.page_jobs]
    if pages:
        PageSteps(plan, jobs).round(pages)
    for slot, job in source.jobs.items():
        if slot not in source.page_jobs:
            jobs.saving(job)
    jobs.overtaking()
    for job in destination.jobs.values():
        jobs.loading(job)
    jobs.arriving()
    ended = max((span.end for span in destination.own), default=0)
    plan.add(Step("own", causes=[last], delay=max(0, end - ended)))
    return Recording(plan.steps, plan.places)
