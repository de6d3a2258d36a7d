"""Guarantees 2, 8 and 9: threads are bounded, made on demand, free when their result is seen, and outlive nothing."""

from __future__ import annotations

import contextlib
import gc
import logging
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import Future

import pytest

from migpool.workers.crew import Crew
from migpool.workers.dispatcher import UNBOUNDED, Dispatcher
from migpool.workers.future import TaskFuture
from migpool.workers.pool import PoolStatistics, WorkerPool
from migpool.workers.thread import WorkerThread
from migpool.workers.worker import Worker
from tests.support.pool_gates import LIMIT, Caller, Gate, occupy, threads_of, until, until_blocked


class Thing:
    """Something that can be weakly referenced."""

    def method(self) -> None:
        return


@contextlib.contextmanager
def pool_of(workers: int, idle_timeout: float | None = None) -> Iterator[WorkerPool]:
    with WorkerPool(workers, "crew", idle_timeout=idle_timeout) as pool:
        yield pool


def test_no_thread_is_made_before_the_first_task() -> None:
    with pool_of(4) as pool:
        assert pool.statistics().threads == 0


def test_threads_are_made_up_to_the_bound_while_all_are_busy() -> None:
    with pool_of(3) as pool:
        gate = Gate()
        for tasks in range(1, 6):
            pool.submit(gate)
            assert pool.statistics().threads == min(tasks, 3)
        gate.open()


def test_seeing_a_result_means_that_its_worker_is_free() -> None:
    with pool_of(8) as pool:
        for _ in range(2000):
            pool.submit(abs, -1).result(LIMIT)
        assert pool.statistics().most_threads == 1


def test_a_worker_in_a_callback_is_not_free() -> None:
    with pool_of(2) as pool:
        gate = Gate()
        results: list[int] = []

        def follow_up(_: Future[int]) -> None:
            results.append(pool.submit(abs, -7).result(LIMIT))

        future = pool.submit(gate)
        future.add_done_callback(follow_up)
        gate.open()
        until(lambda: results == [7])
        assert pool.statistics().most_threads == 2


def test_an_exception_in_a_callback_is_logged_and_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    with pool_of(1) as pool:
        gate = Gate()
        future = pool.submit(gate)
        future.add_done_callback(lambda _: 1 // 0)
        with caplog.at_level(logging.ERROR, "concurrent.futures"):
            gate.open()
            assert pool.submit(abs, -7).result(LIMIT) == 7
    assert "ZeroDivisionError" in caplog.text


def test_idle_threads_end_and_new_ones_are_made_when_needed() -> None:
    with pool_of(3, idle_timeout=0.01) as pool:
        for _ in range(3):
            gate = occupy(pool, 3)
            gate.open()
            until(lambda: pool.statistics().threads == 0)
        assert pool.statistics().running == 0
        assert pool.submit(lambda: threading.current_thread().name).result(LIMIT) == "crew_0"


def test_tasks_and_idle_timeouts_race_without_loss() -> None:
    with pool_of(3, idle_timeout=0) as pool:
        for n in range(300):
            futures = [pool.submit(abs, -m) for m in range(n % 7)]
            assert [future.result(LIMIT) for future in futures] == list(range(n % 7))
        assert pool.statistics().most_threads <= 3
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("crew_")]


def test_the_worker_that_fell_idle_last_gets_the_next_task() -> None:
    with pool_of(3) as pool:
        gates = [Gate() for _ in range(3)]
        names = [pool.submit(lambda gate=gate: (gate(), threading.current_thread().name)) for gate in gates]  # type: ignore[misc]
        for gate in gates:
            gate.await_begun()
        for n in (2, 0, 1):
            gates[n].open()
            names[n].result(LIMIT)
            assert pool.submit(lambda: threading.current_thread().name).result(LIMIT) == names[n].result()[1]


def test_a_thread_that_cannot_be_started_is_reported_and_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with pool_of(2) as pool:
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refuse)
            with pytest.raises(RuntimeError, match="can't start new thread"):
                pool.submit(abs, -1)
        gate = occupy(pool, 2)
        assert pool.statistics().threads == 2
        gate.open()
        assert pool.submit(abs, -7).result(LIMIT) == 7


class Starts:
    """Holds up the start of every worker but the first, until it is told how each of them ends.

    Arguments:
        error: what the start raises in the end; None: it starts the thread.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: Exception | None = None) -> None:
        self.begun = threading.Semaphore(0)
        self.go_on = threading.Semaphore(0)
        start = WorkerThread.start

        def held(thread: WorkerThread) -> None:
            if thread.name != "crew_0":
                self.begun.release()
                assert self.go_on.acquire(timeout=LIMIT)
                if error is not None:
                    raise error
            start(thread)

        monkeypatch.setattr(WorkerThread, "start", held)


def test_nobody_waits_while_a_thread_is_made_for_somebody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    with pool_of(2) as pool:
        starts = Starts(monkeypatch)
        gate = Gate()
        first = pool.submit(gate, 5)
        slow = Caller(lambda: pool.submit(abs, -1).result(LIMIT))
        assert starts.begun.acquire(timeout=LIMIT)
        queued = pool.submit(abs, -7)
        assert (pool.statistics().threads, pool.statistics().queued) == (2, 1)
        gate.open()
        assert (first.result(LIMIT), queued.result(LIMIT)) == (5, 7)
        starts.go_on.release()
        assert slow.outcome() == 1


def test_shutdown_waits_for_a_thread_that_is_being_made(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = WorkerPool(2, "crew", idle_timeout=None)
    gate = occupy(pool, 1)
    starts = Starts(monkeypatch)
    slow = Caller(lambda: pool.submit(abs, -1).result(LIMIT))
    assert starts.begun.acquire(timeout=LIMIT)
    gate.open()
    threads = threads_of("crew")
    end = Caller(pool.shutdown)
    until_blocked(end)
    until(lambda: sum(thread.is_alive() for thread in threads) == 0)  # the first has ended, the second not begun
    assert end.is_alive()
    starts.go_on.release()
    assert slow.outcome() == 1
    end.outcome()
    assert pool.statistics().threads == 0


def test_what_waited_for_a_worker_that_got_no_thread_is_done_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    with pool_of(2) as pool:
        gate = occupy(pool, 1)
        starts = Starts(monkeypatch, RuntimeError("can't start new thread"))
        slow = Caller(lambda: pool.submit(abs, -1))
        assert starts.begun.acquire(timeout=LIMIT)
        queued = [pool.submit(abs, -n) for n in (5, 6)]
        starts.go_on.release()
        with pytest.raises(RuntimeError, match="can't start new thread"):
            slow.outcome()
        queued.append(pool.submit(abs, -7))  # behind those that wait, though there might be a thread now
        assert pool.statistics().queued == 3
        gate.open()
        assert [future.result(LIMIT) for future in queued] == [5, 6, 7]
        assert pool.statistics().most_threads == 1


def test_what_waited_for_the_only_worker_fails_as_it_did_if_no_thread_can_be_had(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pool_of(1) as pool:
        monkeypatch.setattr(Crew, "free_number", lambda _: 1)
        starts = Starts(monkeypatch, RuntimeError("can't start new thread"))
        slow = Caller(lambda: pool.submit(abs, -1))
        assert starts.begun.acquire(timeout=LIMIT)
        queued = [pool.submit(abs, -n) for n in (5, 6)]
        for _ in range(3):
            starts.go_on.release()
        for future in queued:
            with pytest.raises(RuntimeError, match="can't start new thread"):
                future.result(LIMIT)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            slow.outcome()
        monkeypatch.undo()
        assert pool.submit(abs, -7).result(LIMIT) == 7
        assert pool.statistics().threads == 1


def test_names_stay_within_the_bound_whoever_ends_first() -> None:
    with pool_of(3, idle_timeout=0.01) as pool:
        for kept in range(3):
            gates = [Gate() for _ in range(3)]
            for gate in gates:
                pool.submit(gate)
                gate.await_begun()
            for number, gate in enumerate(gates):
                if number != kept:
                    gate.open()
            until(lambda: pool.statistics().threads == 1)
            again = occupy(pool, 2)
            assert {thread.name for thread in threads_of("crew")} == {"crew_0", "crew_1", "crew_2"}
            again.open()
            gates[kept].open()
            until(lambda: pool.statistics().threads == 0)


def test_a_thread_that_dies_is_replaced_while_tasks_wait(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with pool_of(1) as pool:
        gate = occupy(pool, 1)
        futures = [pool.submit(abs, -n) for n in range(3)]
        publish = TaskFuture.publish

        def die_once(*_: object) -> bool:
            monkeypatch.setattr(TaskFuture, "publish", publish)
            raise MemoryError

        monkeypatch.setattr(TaskFuture, "publish", die_once)
        with caplog.at_level(logging.CRITICAL, "concurrent.futures"):
            gate.open()
            assert [future.result(LIMIT) for future in futures] == [0, 1, 2]
        assert pool.submit(abs, -7).result(LIMIT) == 7
        assert pool.statistics().threads == 1
    assert "Exception in worker" in caplog.text


def test_a_result_set_by_somebody_else_is_logged_and_the_worker_lives_on(caplog: pytest.LogCaptureFixture) -> None:
    with pool_of(1) as pool:
        gate = Gate()
        future = pool.submit(gate)
        gate.await_begun()
        future.set_result(99)
        with caplog.at_level(logging.CRITICAL, "concurrent.futures"):
            gate.open()
            assert pool.submit(abs, -7).result(LIMIT) == 7
        assert future.result() == 99
        assert pool.statistics().most_threads == 1
    assert "set by somebody else" in caplog.text


def test_an_idle_worker_holds_on_to_nothing() -> None:
    with pool_of(1) as pool:
        argument, result = Thing(), Thing()
        references = [weakref.ref(argument), weakref.ref(result)]
        pool.submit(lambda _, box: box.pop(), argument, box=[result]).result(LIMIT)
        pool.submit(argument.method)
        del argument, result
        until(lambda: [reference() for reference in references] == [None, None])


def test_a_worker_holds_on_to_nothing_of_an_earlier_task_while_it_runs_a_later_one() -> None:
    with pool_of(1) as pool:
        gate = occupy(pool, 1)
        later = Gate()
        argument = Thing()
        reference = weakref.ref(argument)
        future = pool.submit(lambda thing: thing, argument)
        pool.submit(later)
        del argument, future
        gate.open()
        later.await_begun()
        assert reference() is None
        later.open()


def test_an_exception_that_is_kept_keeps_neither_its_future_nor_the_arguments() -> None:
    def fail(_: Thing) -> None:
        raise ValueError

    def raised_by(future: Future[None]) -> ValueError:
        try:
            future.result(LIMIT)
        except ValueError as error:
            return error
        finally:
            del future  # the exception's traceback holds this frame
        raise AssertionError("nothing was raised")

    gc.disable()  # a cycle would go unnoticed
    try:
        with pool_of(1) as pool:
            thing = Thing()
            future = pool.submit(fail, thing)
            error = raised_by(future)
            argument, finished = weakref.ref(thing), weakref.ref(future)
            del thing, future
            # Without the interpreter lock CPython frees what one thread made and another let go of when the first runs
            # again: hence a task of no account for the worker.
            until(lambda: pool.submit(int).result(LIMIT) == 0 and finished() is None)
            error.__traceback__ = None  # it holds the frame of the task, with its arguments
            until(lambda: pool.submit(int).result(LIMIT) == 0 and argument() is None)
    finally:
        gc.enable()


def test_a_cancelled_future_lets_go_of_its_arguments_before_a_worker_meets_it() -> None:
    with pool_of(1) as pool:
        gate = occupy(pool, 1)
        thing = Thing()
        reference = weakref.ref(thing)
        future = pool.submit(thing.method)
        del thing
        assert future.cancel()
        assert reference() is None
        gate.open()


def test_a_collected_pool_finishes_its_tasks_and_lets_its_threads_end() -> None:
    pool = WorkerPool(2, "crew", idle_timeout=None)
    gate = occupy(pool, 2)
    futures = [pool.submit(abs, -n) for n in range(20)]
    threads = threads_of("crew")
    collected = weakref.ref(pool)
    del pool
    assert collected() is None
    gate.open()
    assert [future.result(LIMIT) for future in futures] == list(range(20))
    for thread in threads:
        thread.join(LIMIT)
        assert not thread.is_alive()


def test_a_collected_pool_wakes_its_idle_threads() -> None:
    pool = WorkerPool(2, "crew", idle_timeout=None)
    occupy(pool, 2).open()
    statistics = weakref.WeakMethod(pool.statistics)
    until(lambda: (numbers := statistics()) is not None and numbers().running == 0)
    threads = threads_of("crew")
    assert len(threads) == 2
    del pool
    for thread in threads:
        thread.join(LIMIT)
        assert not thread.is_alive()


def test_a_pool_collected_at_any_moment_loses_no_task() -> None:
    for n in range(100):
        pool = WorkerPool(2, "crew", idle_timeout=None)
        futures = [pool.submit(abs, -m) for m in range(n % 9)]
        threads = threads_of("crew")
        del pool
        assert [future.result(LIMIT) for future in futures] == list(range(n % 9))
        for thread in threads:
            thread.join(LIMIT)
            assert not thread.is_alive()


def test_statistics_count_what_is_and_remember_the_most() -> None:
    pool = WorkerPool(2, max_pending=3)
    assert pool.statistics() == PoolStatistics(0, 0, 0, 0, 0, 0, 0, 0, 0)
    gate = occupy(pool, 2)
    queued = [pool.submit(abs, -1) for _ in range(3)]
    blocked = threading.Thread(target=pool.submit, args=(abs, -1))
    blocked.start()
    until(lambda: pool.statistics().blocked == 1)
    most = {"most_queued": 3, "most_running": 2, "most_threads": 2, "most_blocked": 1}
    assert pool.statistics() == PoolStatistics(queued=3, running=2, threads=2, blocked=1, completed=0, **most)
    assert queued[0].cancel()
    until(lambda: pool.statistics().blocked == 0)
    assert pool.statistics().queued == 3, "the blocked one has taken the place"
    assert queued[1].cancel()
    assert pool.statistics().queued == 2
    gate.open()
    blocked.join(LIMIT)
    pool.shutdown()
    assert pool.statistics() == PoolStatistics(queued=0, running=0, threads=0, blocked=0, completed=4, **most)


def test_the_most_queued_is_exact_without_a_bound() -> None:
    with pool_of(1) as pool:
        gate = occupy(pool, 1)
        for _ in range(500):
            pool.submit(abs, -1)
        gate.open()
    assert pool.statistics().most_queued == 500


def test_a_worker_that_was_given_a_task_as_its_wait_ended_is_not_let_go() -> None:
    dispatcher = Dispatcher(1, UNBOUNDED, None, "crew", None)
    task = TaskFuture(dispatcher, abs, (-1,), {})
    worker = Worker(dispatcher, 0, task)
    dispatcher.crew.enter(worker)
    dispatcher.running = 1
    assert not dispatcher.dismiss(worker)
    assert worker.inbox.get() is task
    assert dispatcher.dismiss(worker)
    assert dispatcher.running == 0
    assert dispatcher.crew.alive() == 0
    assert dispatcher.crew.threads() == [worker.thread], "whoever joins the pool waits for its last instructions, too"
