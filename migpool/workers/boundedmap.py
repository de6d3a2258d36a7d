"""BoundedMap: ``WorkerPool.map`` with a bound, the pool's or its own, which submits calls as results are taken."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Generic, Protocol, TypeVar

from migpool.errors import PoolFull

T = TypeVar("T")


class Pool(Protocol):
    """What makes the calls: the ways to submit of :class:`~migpool.workers.pool.WorkerPool`."""

    def submit(self, fn: Callable[..., T], /, *args: object) -> Future[T]:
        """Submit, and wait for room."""

    def try_submit(self, fn: Callable[..., T], /, *args: object) -> Future[T]:
        """Submit if there is room; ``PoolFull`` if not."""

    def submit_within(self, timeout: float, fn: Callable[..., T], /, *args: object) -> Future[T]:
        """Submit, and wait so many seconds for room; ``PoolFull`` after that."""


class BoundedMap(Generic[T]):
    """The calls of one ``map`` that were submitted and whose results were not taken yet.

    It never waits for room while it has a result to wait for: the room may be what its own results take up, if nobody
    but the taker of the results could make some.

    Arguments:
        pool: who makes the calls.
        width: at most this many calls at any one time.
        fn: what is called.
        calls: the arguments of each call.
        timeout: seconds from now within which all results must have been taken; None: no limit.
    """

    def __init__(
        self,
        pool: Pool,
        width: int,
        fn: Callable[..., T],
        calls: Iterator[tuple[object, ...]],
        timeout: float | None,
    ) -> None:
        self.deadline = None if timeout is None else time.monotonic() + timeout
        self.pool = pool
        self.width = width
        self.fn = fn
        self.calls = calls
        self.upcoming: tuple[object, ...] | None = None  # taken from ``calls``, and not yet submitted
        self.futures: deque[Future[T]] = deque()

    def fill(self) -> None:
        """Submit as many as there is room for; none, if the pool accepts none."""
        while len(self.futures) < self.width and (args := self.draw()) is not None:
            try:
                self.futures.append(self.pool.try_submit(self.fn, *args))
            except (PoolFull, RuntimeError):
                # RuntimeError: the pool was shut down. The results of what was submitted come first, then
                # ``submit`` meets it again.
                return
            self.upcoming = None

    def draw(self) -> tuple[object, ...] | None:
        """The next call to submit, taken from the iterables no earlier than there may be room; None: there is none."""
        if self.upcoming is None:
            self.upcoming = next(self.calls, None)
            if self.upcoming is None:
                self.calls = iter(())  # the iterables are at their end, and not to be asked again
        return self.upcoming

    def results(self) -> Iterator[T]:
        """The results, in the order of the calls; closing the iterator cancels what has not begun."""
        try:
            while True:
                if not self.futures:
                    args = self.draw()
                    if args is None:
                        return
                    self.submit(args)
                yield self.take()
        finally:
            for future in self.futures:
                future.cancel()

    def submit(self, args: tuple[object, ...]) -> None:
        """Submit the call that is drawn, and wait for room."""
        left = self.seconds_left()
        try:
            future = self.pool.submit(self.fn, *args) if left is None else self.pool.submit_within(left, self.fn, *args)
        except PoolFull as full:
            raise TimeoutError(str(full)) from None
        self.futures.append(future)
        self.upcoming = None

    def take(self) -> T:
        """The next result; its place is given to an upcoming call at once, not when the caller returns for more.

        In a method of its own: no variable of the generator keeps the result alive.
        """
        future = self.futures.popleft()
        try:
            result = future.result(self.seconds_left())
            self.fill()
            return result
        finally:
            future.cancel()
            del future

    def seconds_left(self) -> float | None:
        """Until the deadline; at least 0, and None if there is none."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())
