"""Other pools of threads, each in the way its own documentation has it used.

A contender that cannot do a kind of work has no method for it, and its docstring says why. None is a dependency of
migpool; the extra ``bench`` installs all of them.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any, ClassVar

from migpool.workers.pool import WorkerPool

__all__ = [
    "CONTENDERS",
    "SUBMITTERS",
    "UNCONTENDED",
    "Anyio",
    "Contender",
    "Joblib",
    "MoreExecutors",
    "Ours",
    "Pebble",
    "Standard",
]

SUBMITTERS = 4


def nothing() -> None:
    """The task."""


class Contender(ABC):
    """A pool that runs tasks that do nothing; closed after use.

    Arguments:
        workers: how many threads it has.

    Attributes:
        needs: the module that it is from; empty for what is always there.
    """

    needs: ClassVar[str] = ""

    def __init__(self, workers: int) -> None:
        self.workers = workers

    @abstractmethod
    def batch(self, tasks: int) -> None:
        """Submit all tasks, then collect every result."""

    @abstractmethod
    def round_trips(self, tasks: int) -> None:
        """Submit one and wait for its result, again and again."""

    def contended(self, tasks: int) -> None:
        """Several threads that submit batches to the same pool at once."""
        threads = [threading.Thread(target=self.batch, args=(tasks // SUBMITTERS,)) for _ in range(SUBMITTERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def close(self) -> None:  # noqa: B027 -- not every pool has threads of its own to end
        """End its threads."""


class _WithFutures(Contender):
    """One that gives a future for each task.

    Arguments:
        submit: takes a task.
    """

    def __init__(self, workers: int, submit: Callable[[Callable[[], None]], Future[None]]) -> None:
        super().__init__(workers)
        self._submit = submit

    def batch(self, tasks: int) -> None:
        """Submit all tasks, then collect every result."""
        submit = self._submit
        futures = [submit(nothing) for _ in range(tasks)]
        for future in futures:
            future.result()

    def round_trips(self, tasks: int) -> None:
        """Submit one and wait for its result, again and again."""
        submit = self._submit
        for _ in range(tasks):
            submit(nothing).result()


class _AnExecutor(_WithFutures):
    def __init__(self, workers: int, executor: Executor) -> None:
        super().__init__(workers, executor.submit)
        self._executor = executor

    def close(self) -> None:
        self._executor.shutdown()


class Ours(_AnExecutor):
    """``migpool.WorkerPool``."""

    def __init__(self, workers: int) -> None:
        super().__init__(workers, WorkerPool(workers))


class Standard(_AnExecutor):
    """``concurrent.futures.ThreadPoolExecutor``."""

    def __init__(self, workers: int) -> None:
        super().__init__(workers, ThreadPoolExecutor(workers))


class MoreExecutors(_AnExecutor):
    """``more_executors.Executors.thread_pool``."""

    needs = "more_executors"

    def __init__(self, workers: int) -> None:
        from more_executors import Executors

        super().__init__(workers, Executors.thread_pool(max_workers=workers))


class Pebble(_WithFutures):
    """``pebble.ThreadPool``."""

    needs = "pebble"

    def __init__(self, workers: int) -> None:
        from pebble import ThreadPool

        self._pool = ThreadPool(max_workers=workers)
        super().__init__(workers, self._pool.submit)

    def close(self) -> None:
        """End its threads."""
        self._pool.close()
        self._pool.join()


class Joblib(Contender):
    """``joblib.Parallel`` with threads, kept between calls. It gives results by the batch: a round trip is one of one
    task. Its object belongs to one thread, so it cannot be contended."""

    needs = "joblib"

    def __init__(self, workers: int) -> None:
        from joblib import Parallel, delayed

        super().__init__(workers)
        self._delayed = delayed
        self._parallel = Parallel(n_jobs=workers, backend="threading")
        self._parallel.__enter__()

    def batch(self, tasks: int) -> None:
        """One call with all tasks."""
        self._parallel(self._delayed(nothing)() for _ in range(tasks))

    def round_trips(self, tasks: int) -> None:
        """A call a task."""
        for _ in range(tasks):
            self._parallel([self._delayed(nothing)()])

    def close(self) -> None:
        """End its threads."""
        self._parallel.__exit__(None, None, None)


class Anyio(Contender):
    """``anyio.to_thread.run_sync`` under asyncio, with a limiter of as many tokens as workers. All tasks come from the
    event loop's one thread, so it cannot be contended."""

    needs = "anyio"

    def batch(self, tasks: int) -> None:
        """All tasks in one task group."""
        self._run(lambda limiter: self._all(limiter, tasks))

    def round_trips(self, tasks: int) -> None:
        """One awaited after the other."""
        self._run(lambda limiter: self._each(limiter, tasks))

    def _run(self, work: Callable[[Any], Awaitable[None]]) -> None:
        import anyio

        async def main() -> None:
            await work(anyio.CapacityLimiter(self.workers))

        anyio.run(main)

    @staticmethod
    async def _all(limiter: Any, tasks: int) -> None:
        import anyio

        async def one() -> None:
            await anyio.to_thread.run_sync(nothing, limiter=limiter)

        async with anyio.create_task_group() as group:
            for _ in range(tasks):
                group.start_soon(one)

    @staticmethod
    async def _each(limiter: Any, tasks: int) -> None:
        import anyio

        for _ in range(tasks):
            await anyio.to_thread.run_sync(nothing, limiter=limiter)


CONTENDERS: tuple[type[Contender], ...] = (Standard, MoreExecutors, Pebble, Joblib, Anyio)
UNCONTENDED: tuple[type[Contender], ...] = (Joblib, Anyio)
