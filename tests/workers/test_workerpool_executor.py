"""Guarantee 1: a WorkerPool is an Executor, and does what ThreadPoolExecutor does where the two overlap."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import CancelledError, Executor, Future, as_completed, wait
from concurrent.futures.thread import BrokenThreadPool
from pathlib import Path

import pytest

from migpool.workers.pool import WorkerPool
from tests.support import LONG
from tests.support.pool_gates import LIMIT, Caller, Gate, occupy, until

ATTEMPTS = 40 if LONG else 12


def test_it_is_an_executor_and_gives_futures() -> None:
    with WorkerPool(1) as pool:
        assert isinstance(pool, Executor)
        assert isinstance(pool.submit(abs, -1), Future)


def test_every_argument_reaches_the_function() -> None:
    def seen(*args: object, **kwargs: object) -> tuple[object, object]:
        return args, kwargs

    with WorkerPool(1) as pool:
        for submit in (pool.submit, pool.try_submit):
            assert submit(seen, 1, self=2, fn=3, seconds=4).result(LIMIT) == ((1,), {"self": 2, "fn": 3, "seconds": 4})
        assert pool.submit_within(1, seen, 1, seconds=2).result(LIMIT) == ((1,), {"seconds": 2})


def test_what_a_task_raises_is_raised_by_result_with_the_frames_of_the_task_alone() -> None:
    def culprit() -> None:
        raise KeyError("gone")

    with WorkerPool(1) as pool:
        future = pool.submit(culprit)
        error = future.exception(LIMIT)
        assert isinstance(error, KeyError)
        assert [frame.name for frame in traceback.extract_tb(error.__traceback__)] == ["culprit"]
        with pytest.raises(KeyError, match="gone"):
            future.result()


def test_a_call_that_does_not_fit_its_function_is_the_outcome_of_the_task() -> None:
    function: Callable[..., object] = abs
    with WorkerPool(1) as pool, pytest.raises(TypeError):
        pool.submit(function).result(LIMIT)


def test_even_system_exit_in_a_task_is_its_outcome_and_the_worker_lives_on() -> None:
    def leave() -> None:
        raise SystemExit(3)

    with WorkerPool(1) as pool:
        assert isinstance(pool.submit(leave).exception(LIMIT), SystemExit)
        assert pool.submit(abs, -7).result(LIMIT) == 7
        assert pool.statistics().most_threads == 1


def test_as_completed_sees_every_future_however_it_races_with_the_workers() -> None:
    with WorkerPool(2) as pool:
        for _ in range(300):
            futures = [pool.submit(abs, -n) for n in range(10)]
            assert {future.result() for future in as_completed(futures, LIMIT)} == set(range(10))


def test_wait_sees_every_future_however_it_races_with_the_workers() -> None:
    with WorkerPool(2) as pool:
        for _ in range(300):
            futures = [pool.submit(abs, -n) for n in range(10)]
            assert wait(futures, LIMIT).done == set(futures)


def test_two_threads_waiting_for_the_mixed_futures_of_two_pools_do_not_deadlock() -> None:
    with WorkerPool(2) as left, WorkerPool(2) as right, WorkerPool(2) as waiting:

        def rounds() -> int:
            done = 0
            for _ in range(100):
                futures = [pool.submit(abs, -1) for pool in (left, right, left, right)]
                done += len(wait(futures, LIMIT).done)
            return done

        assert [future.result(2 * LIMIT) for future in [waiting.submit(rounds), waiting.submit(rounds)]] == [400, 400]


def test_done_callbacks_are_called_once_each_in_order_by_the_worker_or_at_once() -> None:
    called: list[tuple[str, str]] = []

    def callback(name: str) -> None:
        called.append((name, threading.current_thread().name))

    with WorkerPool(1, thread_name_prefix="crew") as pool:
        gate = occupy(pool, 1)
        future = pool.submit(abs, -1)
        future.add_done_callback(lambda _: callback("first"))
        future.add_done_callback(lambda _: callback("second"))
        gate.open()
        pool.submit(abs, -1).result(LIMIT)
        future.add_done_callback(lambda _: callback("late"))
    assert called == [("first", "crew_0"), ("second", "crew_0"), ("late", threading.current_thread().name)]


def test_a_pending_future_can_be_cancelled_and_a_running_one_cannot() -> None:
    ran = threading.Event()
    with WorkerPool(1) as pool:
        gate = Gate()
        running = pool.submit(gate)
        gate.await_begun()
        pending = pool.submit(ran.set)
        assert running.running()
        assert not running.cancel()
        assert pending.cancel()
        assert pending.cancelled()
        assert pending.done()
        with pytest.raises(CancelledError):
            pending.result()
        gate.open()
        assert wait([pending], LIMIT).done == {pending}
    assert not ran.is_set()


def test_asyncio_can_use_it() -> None:
    async def use(pool: WorkerPool) -> list[int]:
        loop = asyncio.get_running_loop()
        by_loop = [loop.run_in_executor(pool, abs, -n) for n in range(50)]
        wrapped = [asyncio.wrap_future(pool.submit(abs, -n)) for n in range(50)]
        return await asyncio.gather(*by_loop, *wrapped)

    with WorkerPool(4) as pool:
        assert asyncio.run(use(pool)) == [*range(50), *range(50)]


def test_cancelling_in_asyncio_cancels_the_waiting_task() -> None:
    ran = threading.Event()

    async def use(pool: WorkerPool) -> None:
        future = asyncio.get_running_loop().run_in_executor(pool, ran.set)
        future.cancel()
        with pytest.raises(asyncio.CancelledError):
            await future

    with WorkerPool(1) as pool:
        gate = occupy(pool, 1)
        asyncio.run(use(pool))
        gate.open()
    assert not ran.is_set()


def test_map_without_a_bound_submits_everything_at_once() -> None:
    called: list[int] = []
    pool = WorkerPool(2)
    results = pool.map(called.append, range(100), chunksize=7)
    pool.shutdown()
    assert sorted(called) == list(range(100))
    assert list(results) == [None] * 100


def test_the_initializer_runs_once_in_each_thread_before_its_first_task() -> None:
    tools = threading.local()
    prepared: list[str] = []

    def prepare(tool: str) -> None:
        tools.name = tool
        prepared.append(threading.current_thread().name)

    with WorkerPool(3, "crew", prepare, ("saw",)) as pool:
        gate = occupy(pool, 3)
        gate.open()
        assert [pool.submit(lambda: str(tools.name)).result(LIMIT) for _ in range(20)] == ["saw"] * 20
    assert sorted(prepared) == ["crew_0", "crew_1", "crew_2"]


def test_a_failing_initializer_breaks_the_pool(caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate()

    def fail() -> None:
        gate()
        raise ValueError("no tools")

    pool = WorkerPool(1, initializer=fail)
    futures = [pool.submit(abs, -n) for n in range(3)]
    assert futures[2].cancel()
    with caplog.at_level(logging.CRITICAL, "concurrent.futures"):
        gate.open()
        for future in futures[:2]:
            with pytest.raises(BrokenThreadPool, match="initializer failed"):
                future.result(LIMIT)
    assert "Exception in initializer:" in caplog.text
    assert wait(futures, LIMIT).not_done == set()
    with pytest.raises(BrokenThreadPool):
        pool.submit(abs, -1)
    pool.shutdown()
    with pytest.raises(BrokenThreadPool):
        pool.submit(abs, -1)


def test_shutdown_finishes_what_was_accepted_and_accepts_nothing_more() -> None:
    pool = WorkerPool(2)
    futures = [pool.submit(abs, -n) for n in range(500)]
    pool.shutdown()
    assert [future.result(0) for future in futures] == list(range(500))
    for submit in (pool.submit, pool.try_submit):
        with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
            submit(abs, -1)
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        pool.map(abs, [-1])
    pool.shutdown()


def test_map_of_a_bounded_pool_is_refused_after_shutdown_too() -> None:
    pool = WorkerPool(1, max_pending=1)
    pool.shutdown()
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        pool.map(abs, [-1])


def test_shutdown_without_waiting_lets_the_queue_be_worked_off() -> None:
    pool = WorkerPool(1)
    gate = occupy(pool, 1)
    futures = [pool.submit(abs, -n) for n in range(5)]
    pool.shutdown(wait=False)
    gate.open()
    assert [future.result(LIMIT) for future in futures] == list(range(5))
    pool.shutdown()


def test_shutdown_can_cancel_what_waits_and_tells_those_who_wait_for_it() -> None:
    pool = WorkerPool(1)
    gate = occupy(pool, 1)
    futures = [pool.submit(abs, -n) for n in range(5)]
    called: list[Future[int]] = []
    futures[1].add_done_callback(called.append)
    assert futures[2].cancel()
    pool.shutdown(wait=False, cancel_futures=True)
    assert {future.cancelled() for future in as_completed(futures, LIMIT)} == {True}
    assert called == [futures[1]]
    gate.open()
    pool.shutdown()


def test_submitters_that_race_with_shutdown_are_served_or_refused_and_never_forgotten() -> None:
    for attempt in range(ATTEMPTS):
        pool = WorkerPool(2)
        occupied = occupy(pool, attempt % 3)
        accepted: list[Future[int]] = []
        refused = threading.Event()

        def submit(
            pool: WorkerPool = pool, accepted: list[Future[int]] = accepted, refused: threading.Event = refused
        ) -> None:
            try:
                while True:
                    accepted.append(pool.submit(abs, -1))
            except RuntimeError:
                refused.set()

        submitter = threading.Thread(target=submit)
        submitter.start()
        occupied.open()
        while len(accepted) < attempt:
            occupied.await_begun(0)
        pool.shutdown()
        submitter.join(LIMIT)
        assert refused.is_set()
        assert {future.result(0) for future in accepted} <= {1}


def test_threads_are_named_after_the_pool() -> None:
    class Crew(WorkerPool):
        pass

    with WorkerPool(1, "loader") as named, WorkerPool(1) as first, Crew(1) as other:
        names = [pool.submit(lambda: threading.current_thread().name).result(LIMIT) for pool in (named, first, other)]
    assert names[0] == "loader_0"
    assert names[1].startswith("WorkerPool-")
    assert names[2].startswith("Crew-")
    assert names[2].endswith("_0")


def test_the_number_of_workers_follows_the_number_of_cpus() -> None:
    cpus: int = getattr(os, "process_cpu_count", os.cpu_count)() or 1
    with WorkerPool() as pool:
        gate = occupy(pool, min(32, cpus + 4))
        one_more = pool.submit(abs, -1)
        assert pool.statistics().queued == 1
        gate.open()
        assert one_more.result(LIMIT) == 1


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"max_workers": 0}, ValueError, "max_workers must be greater than 0"),
        ({"max_workers": -1}, ValueError, "max_workers must be greater than 0"),
        ({"max_pending": -1}, ValueError, "max_pending must not be negative"),
        ({"idle_timeout": -0.5}, ValueError, "idle_timeout must not be negative"),
        ({"idle_timeout": float("nan")}, ValueError, "idle_timeout must not be negative"),
        ({"initializer": 3}, TypeError, "initializer must be a callable"),
        ({"thread_name_prefix": 16}, TypeError, "must be a string, not 16: the bound is max_pending="),
        ({"max_workers": "4"}, TypeError, "max_workers must be an integer, not '4'"),
        ({"max_workers": 2.5}, TypeError, "max_workers must be an integer, not 2.5"),
        ({"max_pending": "all"}, TypeError, "max_pending must be an integer, not 'all'"),
        ({"idle_timeout": "10"}, TypeError, "idle_timeout must be a number of seconds, not '10'"),
    ],
)
def test_arguments_that_make_no_pool_are_refused(
    arguments: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        WorkerPool(**arguments)  # type: ignore[arg-type]


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


class TestContext:
    """Guarantee 7: a task runs in a copy of its submitter's context."""

    def test_a_task_sees_what_its_submitter_had_set(self) -> None:
        with WorkerPool(1) as pool:
            variable.set("outer")
            seen = pool.submit(variable.get)
            variable.set("later")
            assert seen.result(LIMIT) == "outer"
            assert pool.submit(variable.get).result(LIMIT) == "later"

    @pytest.mark.parametrize("keyword", [False, True])
    def test_what_a_task_sets_stays_in_the_task(self, keyword: bool) -> None:
        def setting(value: str) -> str:
            variable.set(value)
            return variable.get()

        with WorkerPool(1) as pool:
            variable.set("outer")
            task = pool.submit(setting, value="inner") if keyword else pool.submit(setting, "inner")
            assert task.result(LIMIT) == "inner"
            assert variable.get() == "outer"
            assert pool.submit(variable.get).result(LIMIT) == "outer"

    def test_a_blocked_submitter_takes_its_own_context_along(self) -> None:
        with WorkerPool(1, max_pending=0) as pool:
            gate = occupy(pool, 1)

            def submit() -> str:
                variable.set("blocked")
                return pool.submit(variable.get).result(LIMIT)

            caller = Caller(submit)
            until(lambda: pool.statistics().blocked == 1)
            gate.open()
            assert caller.outcome() == "blocked"


def test_its_repr_says_what_it_does_now() -> None:
    with WorkerPool(1, "crew", max_pending=2) as pool:
        assert repr(pool) == (
            "<WorkerPool 'crew': 0 of 1 worker busy, 0 of 2 tasks queued, 0 submitters blocked, open>"
        )
        gate = occupy(pool, 1)
        pool.submit(abs, -1)
        assert "1 of 1 worker busy, 1 of 2 tasks queued" in repr(pool)
        gate.open()
    assert repr(pool).endswith("shut down>")
    assert "0 tasks queued" in repr(WorkerPool(1))


def test_it_needs_nothing_but_the_standard_library() -> None:
    # Without the packages of this environment: whatever else was imported would be missing.
    program = "import sys; sys.path.insert(0, sys.argv[1]); from migpool import WorkerPool; " + (
        "print(WorkerPool(2).submit(abs, -7).result(20))"
    )
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, root], capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "7\n", "")
