"""``per-device``: a thread of its own for each device, made at set-up.

Proposed by Maciej S. Szmigiero on qemu-devel; ``docs/architecture.md`` cites the thread.

The number of devices is the bound on threads; no device ever waits for another one's turn. A device that is saved by
several jobs at once has a thread for each of them. With
``per-device:switchover`` each thread is made when its device's first job comes, which is at the switchover.

Guarantee: jobs of one device and lane run in the order of ``submit``, on that one's thread. A job for a device that was
not announced, or for none, makes a thread in the same way when the first of them comes.
"""

from __future__ import annotations

from functools import partial
from queue import SimpleQueue
from threading import Lock

from migpool.core.interpreter import Job
from migpool.schedulers.base import ANY_NUMBER, Scheduler, Setup, Staffing


class PerDeviceScheduler(Scheduler):
    """A thread of its own for each device, from set-up to the end."""

    choices = (("setup", "switchover"),)

    def __init__(self) -> None:
        super().__init__()
        self._queues: dict[tuple[int, int], SimpleQueue[Job | None]] = {}
        self._making = Lock()

    def setup(self, setup: Setup) -> None:
        """Start a thread for each iterable device, unless the switchover is to."""
        super().setup(setup)
        if "switchover" in self.chosen:
            return
        for slot in setup.devices:
            self._queue(slot.number, 0, slot.name)

    def submit(self, job: Job) -> None:
        """Hand ``job`` to its device's thread. Never blocks."""
        if self.accept(job):
            number, name = (job.slot.number, job.slot.name) if job.slot else (-1, job.name)
            self._queue(number, job.lane, name).put(job)

    def staffing(self, workers: int | None, channels: int, devices: int) -> Staffing:
        """A thread a job."""
        del workers, channels, devices
        return Staffing(ANY_NUMBER)

    def release(self) -> None:
        """Let each thread end after the jobs that it has."""
        with self._making:
            for queue in self._queues.values():
                queue.put(None)

    def _queue(self, number: int, lane: int, name: str) -> SimpleQueue[Job | None]:
        with self._making:
            queue = self._queues.get((number, lane))
            if queue is None:
                queue = self._queues[number, lane] = SimpleQueue()
                self.spawn(f"{name}+{lane}" if lane else name, partial(self._work, queue))
            return queue

    def _work(self, queue: SimpleQueue[Job | None]) -> None:
        while (job := queue.get()) is not None:
            self.run(job)
