"""A sweep from its first missing point to its last.

Guarantees:

1. A point is computed once, whatever is killed, but for those that are under way just then.
2. What has been computed is on the disk before it is counted; nothing that is there is computed again.
3. No more is under way than keeps everybody busy: memory is bounded, however many points there are.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from migpool.sweeps.local import Crew
from migpool.sweeps.measure import Task
from migpool.sweeps.points import Plan, Point
from migpool.sweeps.store import Store

BATCH_SECONDS: Final = 1.0
"""How long a task should take: long beside what it costs to hand out, short beside what may be lost."""
FIRST_BATCH: Final = 8
MOST_BATCH: Final = 1000
LOOK: Final = 0.2
"""Seconds between two looks at what has been done."""


@dataclass(frozen=True, slots=True)
class Headway:
    """How far a sweep is.

    Arguments:
        done: points that are on the disk.
        count: of all points.
        rate: points a second in this call; 0 until one has been computed.
    """

    done: int
    count: int
    rate: float

    @property
    def left(self) -> float | None:
        """Seconds until the end, if it goes on like that."""
        return (self.count - self.done) / self.rate if self.rate else None


def compute(
    plan: Plan, store: Store, crew: Crew, *, tell: Callable[[Headway], object], stop: Callable[[], bool]
) -> bool:
    """Compute what is missing. Returns whether all is there; not if it was stopped.

    Arguments:
        tell: is called with how far it is, several times a second.
        stop: asked as often; once it says true, what is under way is given up.

    Raises:
        MigpoolError: a point cannot be computed at all, a result not be kept, or nobody is left to compute.
    """
    there = store.done()
    before = done = len(there)
    missing = plan.missing(there)
    real = plan.sweep.file.mode == "real"
    batch = 1 if real else FIRST_BATCH
    began, under_way = time.monotonic(), 0
    more = True
    while more or under_way:
        width = crew.width
        while more and under_way < width:
            points = list(islice(missing, batch))
            if points:
                crew.submit(task_of(plan, points))
                under_way += 1
            more = len(points) == batch
        for found in crew.finished(LOOK):
            under_way -= 1
            store.add(found.rows)
            done += len(found.rows)
            if not real and found.seconds > 0:
                batch = max(1, min(MOST_BATCH, int(BATCH_SECONDS * len(found.rows) / found.seconds)))
        seconds = time.monotonic() - began
        tell(Headway(done, plan.count, (done - before) / seconds if seconds else 0.0))
        if stop():
            return False
    return True


def task_of(plan: Plan, points: Sequence[Point]) -> Task:
    """Some points as a task that any process can do."""
    sweep = plan.sweep
    return Task(sweep.file.mode, sweep.table, sweep.where, plan.keys, sweep.host, points)
