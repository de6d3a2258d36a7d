"""The threads of one migration: all of them are started here, counted here, and joined here.

Guarantees:

1. ``close`` returns when no thread of the group is alive, or raises after its time limit, naming those that are.
2. After ``close`` no thread can be started.
3. ``peak`` is the most threads that were alive at once, the threads of a model's own pool included; ``alive`` is how
   many are now.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

from migpool.errors import TimeLimitExceeded, UsageError

__all__ = ["ThreadGroup"]


class ThreadGroup:
    """Owns threads.

    Arguments:
        limit: how long ``close`` waits for them, in seconds.
    """

    def __init__(self, limit: float = 30.0) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._threads: set[threading.Thread] = set()
        self._alive = 0
        self._closed = False
        self.peak = 0

    def start(self, name: str, run: Callable[[], None]) -> threading.Thread:
        """Start a thread that calls ``run``, which must not raise.

        Raises:
            UsageError: the group is closed.
        """

        def body() -> None:
            try:
                run()
            finally:
                self.left()

        thread = threading.Thread(target=body, name=name, daemon=True)
        with self._lock:
            if self._closed:
                raise UsageError(f"the migration is over, the thread {name} cannot be started")
            self._threads.add(thread)
            self._entered()
        try:
            thread.start()
        except BaseException:
            self.left()
            with self._lock:
                self._threads.discard(thread)
            raise
        return thread

    def entered(self) -> None:
        """A thread that somebody else joins (a pool's worker) begins to work for the migration."""
        with self._lock:
            self._entered()

    def left(self) -> None:
        """A thread has ended, or no longer works for the migration."""
        with self._lock:
            self._alive -= 1

    @property
    def alive(self) -> int:
        """How many threads work for the migration now."""
        return self._alive

    def _entered(self) -> None:
        self._alive += 1
        self.peak = max(self.peak, self._alive)

    def close(self) -> None:
        """Wait for every thread to end.

        Raises:
            TimeLimitExceeded: some have not, within the group's limit.
        """
        with self._lock:
            self._closed = True
            threads = list(self._threads)
        self.join(threads)

    def join(self, threads: Iterable[threading.Thread]) -> None:
        """Wait for some of the group's threads to end; the calling one, if it is among them, is left out.

        Raises:
            TimeLimitExceeded: some have not, within the group's limit.
        """
        deadline = time.monotonic() + self._limit
        threads = list(threads)
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))
        alive = sorted(thread.name for thread in threads if thread.is_alive())
        if alive:
            raise TimeLimitExceeded(f"after {self._limit:g} s these threads still run: {', '.join(alive)}")
        with self._lock:
            self._threads.difference_update(threads)
