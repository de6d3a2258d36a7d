"""A queue, and threads that take what is in it: made on demand, up to a number, and kept.

Guarantees:

1. What is put is performed once, in the order of ``put``, by one of at most ``most`` threads.
2. No thread is idle while something waits.
3. What is put after ``end``, when no thread is left, is performed by who puts it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Lane(Generic[T]):
    """A queue with threads of its own.

    Arguments:
        name: what the threads are called, with a number.
        most: at most this many threads.
        perform: what is done with each thing; must not raise.
        spawn: starts a thread.
    """

    def __init__(
        self, name: str, most: int, perform: Callable[[T], None], spawn: Callable[[str, Callable[[], None]], object]
    ) -> None:
        self._name = name
        self._most = most
        self._perform = perform
        self._spawn = spawn
        self._lock = threading.Lock()
        self._news = threading.Condition(self._lock)
        self._waiting: deque[T] = deque()
        self._threads = 0
        self._idle = 0
        self._ending = False

    def put(self, thing: T, *, own: bool = False) -> None:
        """Have ``thing`` performed.

        Arguments:
            own: the caller is one of the threads, and about to take what waits: nobody is woken for it.

        Raises:
            RuntimeError: there is no thread, and none can be had.
        """
        with self._lock:
            alone = self._ending and not self._threads
            if not alone:
                if not own and self._idle <= len(self._waiting) and self._threads < self._most and not self._ending:
                    self._begin()
                self._waiting.append(thing)
                if not own:
                    self._news.notify()
        if alone:
            self._perform(thing)

    def end(self) -> None:
        """Let the threads end when nothing waits."""
        with self._lock:
            self._ending = True
            self._news.notify_all()

    def _begin(self) -> None:
        try:
            self._spawn(f"{self._name}-{self._threads}", self._work)
        except RuntimeError:
            if not self._threads:
                raise
        else:
            self._threads += 1

    def _work(self) -> None:
        while (thing := self._next()) is not None:
            self._perform(thing)

    def _next(self) -> T | None:
        with self._lock:
            self._idle += 1
            while not self._waiting:
                if self._ending:
                    self._threads -= 1
                    return None
                self._news.wait()
            self._idle -= 1
            return self._waiting.popleft()
