"""``pool``: one bounded pool of workers, owned by the migration; a job takes the first free one. Peter's model.

The number of workers is the bound on threads: ``pool:N`` on the command line, else the smaller of the number of
channels and of iterable devices. When all workers are busy, ``submit`` blocks until one is free: the submitter feels
the load.

Guarantee: jobs begin in the order of ``submit``; so with the devices in the same order at both ends, the lowest
    device that is not finished is being worked on at both, and no pool, however small, can wait for the other end for
    ever.
"""

from __future__ import annotations

import threading

from migpool.interpreter import Job
from migpool.schedulers.base import Scheduler, Setup
from migpool.workerpool import WorkerPool

__all__ = ["PoolScheduler"]

START_LIMIT = 10.0


class PoolScheduler(Scheduler):
    """One bounded pool of workers owned by the migration; when all are busy, submitting blocks (Peter's model)."""

    takes_workers = True

    def setup(self, setup: Setup) -> None:
        """Make the workers: they are ready before the first byte of state."""
        super().setup(setup)
        workers = setup.workers or max(1, min(setup.channels, len(setup.devices)))
        self._pool = WorkerPool(
            workers, f"{setup.side}-worker", initializer=setup.threads.entered, max_pending=0, idle_timeout=None
        )
        # Each worker waits for all the others, so that each of these tasks needs a worker of its own.
        ready = threading.Barrier(workers + 1)
        for _ in range(workers):
            self._pool.submit(ready.wait, START_LIMIT)
        ready.wait(START_LIMIT)

    def submit(self, job: Job) -> None:
        """Give ``job`` to a free worker; block until there is one. From within a job: queue it and return."""
        if self.accept(job):
            self._pool.submit(self.run, job)

    def release(self) -> None:
        """End the workers after the jobs that they have."""
        workers = self._pool.statistics().threads
        self._pool.shutdown(wait=True)
        for _ in range(workers):
            self.threads.left()
