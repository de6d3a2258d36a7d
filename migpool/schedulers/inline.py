"""``inline``: the migration's own thread runs one job after the other. No threads at all.

It is what migration did before device state had threads, and the row "off" of the published measurements.

Guarantee: jobs run in the order of ``submit``, each to its end before the next begins. A job that is submitted by a job
runs after it.
"""

from __future__ import annotations

from collections import deque

from migpool.core.interpreter import Job
from migpool.schedulers.base import Scheduler, Staffing


class InlineScheduler(Scheduler):
    """No threads: the migration's own thread runs one job after the other."""

    def __init__(self) -> None:
        super().__init__()
        self._waiting: deque[Job] = deque()
        self._running = False

    def submit(self, job: Job) -> None:
        """Run ``job`` now, on the calling thread; from within a job, after that one."""
        if not self.accept(job):
            return
        self._waiting.append(job)
        if self._running:
            return
        self._running = True
        try:
            while self._waiting:
                self.run(self._waiting.popleft())
        finally:
            self._running = False

    def staffing(self, workers: int | None, channels: int, devices: int) -> Staffing:
        """The submitter runs each job."""
        del workers, channels, devices
        return Staffing(1, "run")
