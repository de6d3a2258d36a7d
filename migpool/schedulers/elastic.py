"""``elastic``: a pool that grows by a thread whenever a job would otherwise wait, and keeps it.

The compromise that was merged in QEMU 10.0: the pool is the migration's, yet no job ever queues. ``elastic:N`` sets a
limit; beyond it jobs queue, without blocking the submitter.

Guarantee: below the limit, a job is taken up at once, by an idle thread or a new one.
"""

from __future__ import annotations

from migpool.interpreter import Job
from migpool.schedulers.base import Scheduler, Setup
from migpool.workerpool import WorkerPool

__all__ = ["ElasticScheduler"]

UNLIMITED = 1 << 16


class ElasticScheduler(Scheduler):
    """A pool that grows by a thread whenever a job would otherwise wait, and keeps it (as in QEMU 10.0)."""

    takes_workers = True

    def setup(self, setup: Setup) -> None:
        """Make the pool, without threads."""
        super().setup(setup)
        self._pool = WorkerPool(
            setup.workers or UNLIMITED,
            f"{setup.side}-worker",
            initializer=setup.threads.entered,
            idle_timeout=None,
        )

    def submit(self, job: Job) -> None:
        """Give ``job`` to an idle thread, or to a new one. Never blocks."""
        if self.accept(job):
            self._pool.submit(self.run, job)

    def release(self) -> None:
        """End the threads after the jobs that they have."""
        threads = self._pool.statistics().threads
        self._pool.shutdown(wait=True)
        for _ in range(threads):
            self.threads.left()
