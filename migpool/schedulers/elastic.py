"""``elastic``: a pool that grows by a thread whenever a job would otherwise wait, and keeps it.

The compromise that was merged in QEMU 10.0: the pool is the migration's, yet no job ever queues. ``elastic:N`` sets a
limit; beyond it jobs queue, without blocking the submitter.

Threads are made when jobs come, which is at the switchover; with ``elastic:setup`` one for each iterable device (up to
the limit) is there from set-up on.

A thread is made while another one is on its way to its first job only by that one: so the pool grows as fast as threads
begin, and jobs that take no longer than a thread takes to begin are done by those that are there. A thread a job, made
by the submitter, was five times as slow for 512 devices that take no time.

Guarantee: below the limit, while a job waits, a thread is idle that has been woken for it, or one is being made.
"""

from __future__ import annotations

from collections import deque
from threading import Condition, Lock

from migpool.core.interpreter import Job
from migpool.schedulers.base import ANY_NUMBER, Scheduler, Setup, Staffing


class ElasticScheduler(Scheduler):
    """A pool that grows by a thread whenever a job would otherwise wait, and keeps it (as in QEMU 10.0)."""

    takes_workers = True
    choices = (("setup", "switchover"),)

    def setup(self, setup: Setup) -> None:
        """Make no threads, unless they are to be there early."""
        super().setup(setup)
        self._limit = setup.workers or ANY_NUMBER
        self._side = setup.side
        self._waiting: deque[Job] = deque()
        self._news = Condition(Lock())
        self._threads = self._idle = 0
        self._making = self._released = False
        for _ in range(min(self._limit, len(setup.devices)) if "setup" in self.chosen else 0):
            self._make(self._number())

    def submit(self, job: Job) -> None:
        """Give ``job`` to an idle thread, or to a new one. Never blocks."""
        if not self.accept(job):
            return
        with self._news:
            self._waiting.append(job)
            self._news.notify()
            number = self._another()
        self._make(number)

    def release(self) -> None:
        """Let the threads end: no job waits any more."""
        with self._news:
            self._released = True
            self._news.notify_all()

    def staffing(self, workers: int | None, channels: int, devices: int) -> Staffing:
        """A thread a job, up to the limit."""
        del channels, devices
        return Staffing(workers or ANY_NUMBER)

    def _another(self) -> int:
        """The number of the thread that must be made now; 0 for none. With the lock held."""
        if self._making or len(self._waiting) <= self._idle or self._threads >= self._limit:
            return 0
        self._making = True
        return self._number()

    def _number(self) -> int:
        self._threads += 1
        return self._threads

    def _make(self, number: int) -> None:
        if not number:
            return
        try:
            self.spawn(f"{self._side}-worker_{number - 1}", self._work)
        except BaseException as error:
            with self._news:
                self._threads -= 1
                self._making = False
                alone = not self._threads
            if alone or not isinstance(error, RuntimeError):
                raise
            # No thread can be had: those that are there do what waits.

    def _work(self) -> None:
        """What a thread does: one job after the other, and another thread while there are more."""
        first = True
        while True:
            with self._news:
                if first:
                    self._making = first = False
                while not self._waiting and not self._released:
                    self._idle += 1
                    self._news.wait()
                    self._idle -= 1
                if not self._waiting:
                    return
                job = self._waiting.popleft()
                number = self._another()
            self._make(number)
            self.run(job)
