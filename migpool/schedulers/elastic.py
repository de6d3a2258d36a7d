"""``elastic``: a pool that grows by a thread whenever a job would otherwise wait, and keeps it.

The compromise that was merged in QEMU 10.0: the pool is the migration's, yet no job ever queues. ``elastic:N`` sets a
limit; beyond it jobs queue, without blocking the submitter.

Threads are made when jobs come, which is at the switchover; with ``elastic:setup`` one for each iterable device (up to
the limit) is there from set-up on.

Guarantee: below the limit, a job is taken up at once, by an idle thread or a new one.
"""

from __future__ import annotations

from migpool.core.interpreter import Job
from migpool.schedulers.base import ANY_NUMBER, Scheduler, Setup, Staffing
from migpool.schedulers.pool import start_workers


class ElasticScheduler(Scheduler):
    """A pool that grows by a thread whenever a job would otherwise wait, and keeps it (as in QEMU 10.0)."""

    takes_workers = True
    choices = (("setup", "switchover"),)

    def setup(self, setup: Setup) -> None:
        """Make the pool, without threads unless they are to be there early."""
        super().setup(setup)
        self._pool = self.pool(setup.workers or ANY_NUMBER, f"{setup.side}-worker")
        if "setup" in self.chosen:
            start_workers(self._pool, min(setup.workers or ANY_NUMBER, len(setup.devices)))

    def submit(self, job: Job) -> None:
        """Give ``job`` to an idle thread, or to a new one. Never blocks."""
        if self.accept(job):
            self._pool.submit(self.run, job)

    def staffing(self, workers: int | None, channels: int, devices: int) -> Staffing:
        """A thread a job, up to the limit."""
        del channels, devices
        return Staffing(workers or ANY_NUMBER)
