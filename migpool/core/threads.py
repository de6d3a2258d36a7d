"""The threads of one migration: all of them are started here, counted here, and joined here.

A part of a group is a group for some of its threads, which are counted in the whole too: a threading model has one, and
the workers of its pools are in it.

Guarantees:

1. ``close`` returns when no thread of the group is alive, or raises after its time limit, naming those that are. A
   thread that the close of a part has named is not waited for, nor named, again when the whole is closed.
2. After ``close`` no thread can be started.
3. ``peak`` is the most threads that were alive at once, ``alive`` how many are now.
4. No thread keeps the process from ending: what a device holds for good, ends with the process.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Self

from migpool.errors import TimeLimitExceeded, UsageError
from migpool.workers.thread import WorkerThread


class _GroupThread(WorkerThread):
    """A thread that its group knows of from its start to its end."""

    def __init__(self, group: ThreadGroup, target: Callable[[], object], name: str) -> None:
        super().__init__(target, name)
        self.daemon = True
        self._group = group

    def start(self) -> None:
        self._group._begin(self)
        try:
            super().start()
        except BaseException:
            self._group._never_began(self)
            self.give_up()
            raise

    def run(self) -> None:
        try:
            super().run()
        finally:
            self._group.left()


class ThreadGroup:
    """Owns threads.

    Arguments:
        limit: how long ``close`` waits for them, in seconds.
    """

    def __init__(self, limit: float = 30.0) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._whole: ThreadGroup | None = None
        self._threads: set[_GroupThread] = set()
        self._held: set[_GroupThread] = set()
        self._alive = 0
        self._closed = False
        self.peak = 0

    def part(self) -> Self:
        """A group for some of the threads, to be closed before this one."""
        part = type(self)(self._limit)
        part._lock = self._lock
        part._whole = self
        return part

    def start(self, name: str, run: Callable[[], object]) -> threading.Thread:
        """Start a thread that calls ``run``, which must not raise; return without waiting for it to begin.

        Raises:
            UsageError: the group is closed.
            RuntimeError: no thread can be had.
        """
        thread = self.thread(run, name)
        thread.start()
        return thread

    def thread(self, run: Callable[[], object], name: str) -> WorkerThread:
        """A thread that somebody else starts, such as a :class:`~migpool.workers.pool.WorkerPool`, which takes this
        method for its argument ``thread``. It belongs to the group from its start on, which raises as :meth:`start`."""
        return _GroupThread(self, run, name)

    def entered(self) -> None:
        """A thread that somebody else joins begins to work for the migration: the one that runs it."""
        with self._lock:
            self._count(1)

    def left(self) -> None:
        """A thread has ended, or no longer works for the migration."""
        with self._lock:
            self._count(-1)

    @property
    def alive(self) -> int:
        """How many threads work for the migration now. Atomic: the read."""
        return self._alive

    def close(self, patience: float | None = None) -> None:
        """Wait for every thread to end; the calling one, if it is among them, is left out.

        Arguments:
            patience: seconds to wait, instead of the group's limit.

        Raises:
            TimeLimitExceeded: some have not ended by then.
        """
        limit = self._limit if patience is None else patience
        with self._lock:
            self._closed = True
            threads = self._threads - self._held - {threading.current_thread()}
        deadline = time.monotonic() + limit
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        alive = {thread for thread in threads if not thread.ended}
        with self._lock:
            self._threads -= threads - alive
            if self._whole is not None:
                self._whole._threads -= threads - alive
                self._whole._held |= alive
        if alive:
            names = ", ".join(sorted(thread.name for thread in alive))
            raise TimeLimitExceeded(f"after {limit:g} s these threads still run: {names}")

    def _begin(self, thread: _GroupThread) -> None:
        with self._lock:
            if self._closed or (self._whole is not None and self._whole._closed):
                raise UsageError(f"the migration is over, the thread {thread.name} cannot be started")
            self._threads.add(thread)
            if self._whole is not None:
                self._whole._threads.add(thread)
            self._count(1)

    def _never_began(self, thread: _GroupThread) -> None:
        with self._lock:
            self._threads.discard(thread)
            if self._whole is not None:
                self._whole._threads.discard(thread)
            self._count(-1)

    def _count(self, change: int) -> None:
        """With the lock held."""
        self._alive += change
        self.peak = max(self.peak, self._alive)
        if self._whole is not None:
            self._whole._count(change)
