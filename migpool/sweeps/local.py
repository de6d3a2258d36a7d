"""Who computes a sweep's points: the crew, and that of processes of this host.

A crew takes tasks, and gives back what came of them, in whatever order. A worker that dies is replaced, and what it was
doing is done again; a task that ends its worker again and again is an error.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from typing import Final, Protocol

from migpool.errors import MigpoolError
from migpool.sweeps.measure import Done, Task, measure
from migpool.units import count_of

MOST_DEATHS: Final = 3
"""Workers that may die over one task."""
_ANEW: Final = multiprocessing.get_context("spawn")
"""Processes are started anew, not forked: this one may have threads."""


class Crew(Protocol):
    """Who computes.

    Attributes:
        width: how many tasks are worth having under way.
    """

    @property
    def width(self) -> int: ...

    def submit(self, task: Task) -> None:
        """Have a task done."""

    def finished(self, seconds: float) -> list[Done]:
        """What has been done since the last call; waits so long at most for the first.

        Raises:
            MigpoolError: a task cannot be done, or nobody is there to do it.
        """

    def close(self) -> None:
        """Let everybody go, what is under way too."""


class Deaths:
    """Counts over which tasks workers have died."""

    def __init__(self) -> None:
        self._count: Counter[int] = Counter()

    def note(self, task: Task) -> None:
        """A worker has died over it.

        Raises:
            MigpoolError: that was once too often.
        """
        first = task.points[0].number
        self._count[first] += 1
        if self._count[first] >= MOST_DEATHS:
            raise MigpoolError(
                f"{count_of(MOST_DEATHS, 'worker')} ended over the points from {first} on, {len(task.points)} of them: "
                "look for what ends them (the kernel's log, if it was memory), and run the same command again to go on"
            )


class LocalCrew:
    """Processes of this host, which end when this one does.

    Arguments:
        workers: how many.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._tasks: dict[Future[Done], Task] = {}
        self._deaths = Deaths()
        # Its other end is this process's alone, and is closed when this one ends, however it ends.
        self._reader, self._writer = _ANEW.Pipe(duplex=False)
        self._pool = self._made()

    @property
    def width(self) -> int:
        return self._workers + 1  # one waits for whoever is done first

    def submit(self, task: Task) -> None:
        try:
            self._tasks[self._pool.submit(measure, task)] = task
        except BrokenProcessPool:
            broken: Future[Done] = Future()
            broken.set_exception(BrokenProcessPool())
            self._tasks[broken] = task

    def finished(self, seconds: float) -> list[Done]:
        done, _ = wait(self._tasks, seconds, FIRST_COMPLETED)
        found, lost = [], []
        for future in done:
            task = self._tasks.pop(future)
            try:
                found.append(future.result())
            except BrokenProcessPool:
                lost.append(task)
        if lost:
            # Which of them its worker died over nobody can tell: all that were under way are done again.
            lost += self._tasks.values()
            self._tasks.clear()
            self._pool.shutdown()
            self._pool = self._made()
            for task in sorted(lost, key=lambda one: one.points[0].number):
                self._deaths.note(task)
                self.submit(task)
        return found

    def close(self) -> None:
        if not self._tasks:
            self._pool.shutdown()
        self._writer.close()
        self._pool.shutdown(cancel_futures=True)
        self._reader.close()

    def _made(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(self._workers, _ANEW, _begin, (self._reader,))


def _begin(lifeline: Connection) -> None:
    """A worker's first act: Ctrl-C is the client's to answer, and nobody outlives its end of the lifeline."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()


def _end_with(lifeline: Connection) -> None:
    lifeline.poll(None)  # nothing is ever sent
    os._exit(1)
