"""``pool``: one bounded pool of workers, owned by the migration; a job takes the first free one.

Proposed by Peter Xu on qemu-devel; ``docs/architecture.md`` cites the thread.

The number of workers is the bound on threads: ``pool:N`` on the command line, else the smaller of the number of
channels and of iterable devices. When all workers are busy, ``submit`` blocks until one is free: the submitter feels
the load. With ``pool:queue`` it never blocks, and jobs wait in the pool's queue.

The workers are there from set-up on; with ``pool:switchover`` each is made for the first job that finds no idle one.

Guarantee: jobs begin in the order of ``submit``; so with the devices in the same order at both ends, the lowest
    device that is not finished is being worked on at both, and no pool, however small, can wait for the other end for
    ever.
"""

from __future__ import annotations

import threading

from migpool.core.interpreter import Job
from migpool.schedulers.base import Scheduler, Setup, Staffing, default_workers
from migpool.workers.pool import WorkerPool

START_LIMIT = 10.0


def start_workers(pool: WorkerPool, count: int) -> None:
    """Have ``pool`` start ``count`` workers, and wait until all of them run."""
    # Each worker waits for all the others, so that each of these tasks needs a worker of its own.
    ready = threading.Barrier(count + 1)
    for _ in range(count):
        pool.submit(ready.wait, START_LIMIT)
    ready.wait(START_LIMIT)


class PoolScheduler(Scheduler):
    """One bounded pool of workers owned by the migration; when all are busy, submitting blocks."""

    takes_workers = True
    choices = (("block", "queue"), ("setup", "switchover"))

    def setup(self, setup: Setup) -> None:
        """Make the workers, unless the switchover is to: they are ready before the first byte of state."""
        super().setup(setup)
        workers = setup.workers_or_default
        self._pool = self.pool(workers, f"{setup.side}-worker", max_pending=None if "queue" in self.chosen else 0)
        if "switchover" not in self.chosen:
            start_workers(self._pool, workers)

    def submit(self, job: Job) -> None:
        """Give ``job`` to a free worker; block until there is one, or queue it. From within a job: never block."""
        if self.accept(job):
            self._pool.submit(self.run, job)

    def staffing(self, workers: int | None, channels: int, devices: int) -> Staffing:
        """As many workers as there are; with "queue" submitting does not block."""
        return Staffing(default_workers(workers, channels, devices), "queue" if "queue" in self.chosen else "block")
