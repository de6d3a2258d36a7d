"""``one-thread``: all jobs on one thread of the model's own, in their order. An example of a threading model."""

from __future__ import annotations

from queue import SimpleQueue

from migpool.schedulers import Job, Scheduler, Setup

__all__ = ["OneThreadScheduler"]


class OneThreadScheduler(Scheduler):
    """All jobs on one thread, in their order (an example)."""

    def setup(self, setup: Setup) -> None:
        """Start the thread."""
        super().setup(setup)
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self.spawn("one", self._work)

    def submit(self, job: Job) -> None:
        """Queue ``job``. Never blocks."""
        if self.accept(job):
            self._jobs.put(job)

    def release(self) -> None:
        """Let the thread end after the jobs that it has."""
        self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            self.run(job)
