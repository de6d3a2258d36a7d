"""``pool``: one bounded pool of workers, owned by the migration; a job takes the first free one.

Proposed by Peter Xu on qemu-devel; ``docs/architecture.md`` cites the thread.

The number of workers is the bound on threads: ``pool:N`` on the command line, else the smaller of the number of
channels and of iterable devices. When all workers are busy, ``submit`` blocks until one is free: the submitter feels
the load. With ``pool:queue`` it never blocks, and jobs wait in the pool's queue.

With ``pool:auto`` it takes the number from what there is: as many workers as devices, since devices block, and at most
twice as many as there are channels or CPUs, whichever are more. Where the migrations of a host have threads together
(``migpool/schedulers/host_threads.py``) a worker takes one of these for each job: so a migration has as many as the
others leave. ``pool:N:auto`` has N at most. Jobs wait in the queue then, as with ``queue``.

The workers are there from set-up on; with ``pool:switchover`` each is made for the first job that finds no idle one.

Guarantee: jobs begin in the order of ``submit``; so with the devices in the same order at both ends, the lowest
    device that is not finished is being worked on at both, and no pool, however small, can wait for the other end for
    ever.
"""

from __future__ import annotations

import os
import threading

from migpool.core.interpreter import Job
from migpool.schedulers.base import Scheduler, Setup, Staffing, default_workers
from migpool.schedulers.host_threads import HostThreads
from migpool.workers.pool import WorkerPool

START_LIMIT = 10.0
OVER = 2
"""So many times as many workers as channels or CPUs: where devices block, twice their number was better by a third."""


def automatic(workers: int | None, channels: int, devices: int) -> int:
    """The number of workers that ``auto`` takes; ``workers``: how many at most, if the user said so."""
    found = max(1, min(devices, OVER * max(channels, os.cpu_count() or 1)))
    return min(workers, found) if workers else found


def start_workers(pool: WorkerPool, count: int) -> None:
    """Have ``pool`` start ``count`` workers, and wait until all of them run."""
    # Each worker waits for all the others, so that each of these tasks needs a worker of its own.
    ready = threading.Barrier(count + 1)
    try:
        for _ in range(count):
            pool.submit(ready.wait, START_LIMIT)
        ready.wait(START_LIMIT)
    except BaseException:
        ready.abort()  # the migration ends meanwhile: those that came wait for nobody
        raise


class PoolScheduler(Scheduler):
    """One bounded pool of workers owned by the migration; when all are busy, submitting blocks."""

    takes_workers = True
    choices = (("block", "queue", "auto"), ("setup", "switchover"))

    def setup(self, setup: Setup) -> None:
        """Make the workers, unless the switchover is to: they are ready before the first byte of state."""
        super().setup(setup)
        auto = "auto" in self.chosen
        workers = automatic(setup.workers, setup.channels, len(setup.devices)) if auto else setup.workers_or_default
        self._host = HostThreads.inherited() if auto and setup.side == "source" else None
        bound = None if auto or "queue" in self.chosen else 0
        self._pool = self.pool(workers, f"{setup.side}-worker", max_pending=bound)
        if "switchover" not in self.chosen:
            start_workers(self._pool, workers)

    def submit(self, job: Job) -> None:
        """Give ``job`` to a free worker; block until there is one, or queue it. From within a job: never block."""
        if self.accept(job):
            self._pool.submit(self.run if self._host is None else self._run_on_the_hosts, job)

    def _run_on_the_hosts(self, job: Job) -> None:
        assert self._host is not None
        if not self._host.take(self.switch):
            job.steps.close()
            self.ended(job, None)
            return
        try:
            self.run(job)
        finally:
            self._host.give()

    def staffing(self, workers: int | None, channels: int, devices: int) -> Staffing:
        """As many workers as there are; with "queue" or "auto" submitting does not block."""
        if "auto" in self.chosen:
            return Staffing(automatic(workers, channels, devices))
        return Staffing(default_workers(workers, channels, devices), "queue" if "queue" in self.chosen else "block")
