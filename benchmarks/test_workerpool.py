"""What a task costs in a WorkerPool, and in ThreadPoolExecutor in the same run.

``pytest benchmarks/test_workerpool.py -s`` prints a table of ratios: rounds of the two pools alternate, so both see the
same machine, and a ratio is taken within each round. The pytest-benchmark tests give the absolute figures.
"""

from __future__ import annotations

import gc
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from migpool.workers.pool import WorkerPool

ROUNDS = 15
BATCH = 5000
ROUND_TRIPS = 400
SUBMITTERS = 4

P = ParamSpec("P")
T = TypeVar("T")

Work = Callable[[Executor], int]
"""Work for a pool; returns how many tasks that was."""


class WithSemaphore(ThreadPoolExecutor):
    """What is usually written where ``submit`` is to block: a place is taken before it, and given back at the end.

    Arguments:
        workers: how many threads.
        places: how many tasks may wait or run.
    """

    def __init__(self, workers: int, places: int) -> None:
        super().__init__(workers)
        self._places = threading.BoundedSemaphore(places)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Wait for a place, and submit."""
        self._places.acquire()
        try:
            future = super().submit(fn, *args, **kwargs)
        except BaseException:
            self._places.release()
            raise
        future.add_done_callback(lambda _: self._places.release())
        return future


def nothing() -> None:
    """The task."""


def batch(pool: Executor) -> int:
    """Submit many tasks, then collect every result."""
    futures = [pool.submit(nothing) for _ in range(BATCH)]
    for future in futures:
        future.result()
    return BATCH


def round_trips(pool: Executor) -> int:
    """Submit one task and wait for its result, again and again."""
    for _ in range(ROUND_TRIPS):
        pool.submit(nothing).result()
    return ROUND_TRIPS


def contended(pool: Executor) -> int:
    """Several threads that submit batches to the same pool at once."""
    share = BATCH // SUBMITTERS

    def submit() -> None:
        futures: list[Future[None]] = [pool.submit(nothing) for _ in range(share)]
        for future in futures:
            future.result()

    threads = [threading.Thread(target=submit) for _ in range(SUBMITTERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return share * SUBMITTERS


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. Where the WorkerPool has a bound, the other has a semaphore.

    Arguments:
        work: what the pools do.
        workers: how many threads each has.
        max_pending: the bound of the WorkerPool.
        at_least: the ratio that is the target; None: none was set.
    """

    work: Work
    workers: int
    max_pending: int | None
    at_least: float | None

    def __str__(self) -> str:
        bound = "" if self.max_pending is None else f"-bound{self.max_pending}"
        return f"{self.work.__name__}-{self.workers}{bound}"


ROWS = [
    *(Row(batch, workers, None, 4.0) for workers in (1, 2, 4, 8)),
    *(Row(batch, workers, 64, None) for workers in (2, 8)),
    *(Row(round_trips, workers, None, 0.9) for workers in (1, 2, 4, 8)),
    *(Row(contended, workers, None, None) for workers in (2, 8)),
]


def microseconds(work: Work, pool: Executor) -> float:
    """The time of one task of ``work``, without the collector: which round pays for it is chance."""
    gc.collect()
    gc.disable()
    try:
        begun = time.perf_counter()
        tasks = work(pool)
        return (time.perf_counter() - begun) / tasks * 1e6
    finally:
        gc.enable()


@pytest.fixture(scope="module")
def table() -> Iterator[list[str]]:
    """The lines of the table, printed when all are there."""
    lines = [f"{'µs a task, medians':24}{'standard':>10}{'ours':>8}{'ratio':>8}{'least':>8}{'most':>8}{'target':>8}"]
    yield lines
    print("\n" + "\n".join(lines))  # noqa: T201


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_ratio(row: Row, table: list[str]) -> None:
    bound = row.max_pending
    standard = ThreadPoolExecutor(row.workers) if bound is None else WithSemaphore(row.workers, row.workers + bound)
    with standard, WorkerPool(row.workers, max_pending=bound) as ours:
        for pool in (standard, ours):
            row.work(pool)
        pairs = [(microseconds(row.work, standard), microseconds(row.work, ours)) for _ in range(ROUNDS)]
    ratios = sorted(theirs / own for theirs, own in pairs)
    theirs, own = (statistics.median(times) for times in zip(*pairs, strict=True))
    target = "" if row.at_least is None else f"{row.at_least:.1f}"
    middle = statistics.median(ratios)
    table.append(f"{row!s:24}{theirs:10.2f}{own:8.2f}{middle:8.2f}{ratios[0]:8.2f}{ratios[-1]:8.2f}{target:>8}")
    assert len(ratios) == ROUNDS


@pytest.mark.parametrize("work", [batch, round_trips, contended], ids=lambda work: str(work.__name__))
@pytest.mark.parametrize("kind", [ThreadPoolExecutor, WorkerPool], ids=lambda kind: str(kind.__name__))
def test_cost(benchmark: BenchmarkFixture, kind: type[ThreadPoolExecutor | WorkerPool], work: Work) -> None:
    with kind(2) as pool:
        work(pool)
        assert benchmark(work, pool) > 0
