"""Guarantees 3 to 6: the bound of the queue, the line of blocked submitters, the end of every wait."""

from __future__ import annotations

import itertools
import threading
import weakref
from concurrent.futures import Future, wait
from concurrent.futures.thread import BrokenThreadPool

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migpool.errors import PoolFull
from migpool.workers.pool import WorkerPool
from tests.support.pool_gates import LIMIT, Caller, Gate, occupy, until


@pytest.mark.parametrize("max_pending", [0, 1, 5])
def test_the_queue_takes_max_pending_tasks_and_not_one_more(max_pending: int) -> None:
    with WorkerPool(2, max_pending=max_pending) as pool:
        gate = occupy(pool, 2)
        queued = [pool.try_submit(abs, -n) for n in range(max_pending)]
        with pytest.raises(PoolFull, match=f"no worker of 2 was free, and {max_pending} tasks? queued"):
            pool.try_submit(abs, -1)
        gate.open()
        assert [future.result(LIMIT) for future in queued] == list(range(max_pending))


def test_a_pool_without_a_bound_accepts_everything_at_once() -> None:
    with WorkerPool(1) as pool:
        gate = occupy(pool, 1)
        futures = [pool.try_submit(abs, -n) for n in range(1000)]
        gate.open()
        assert [future.result(LIMIT) for future in futures] == list(range(1000))


def test_many_submitters_never_exceed_the_bounds() -> None:
    with WorkerPool(3, max_pending=4) as pool:

        def submit_many() -> list[int]:
            return [pool.submit(abs, -n).result(LIMIT) for n in range(50)]

        def submit_ahead() -> list[int]:
            return [future.result(LIMIT) for future in [pool.submit(abs, -n) for n in range(200)]]

        callers = [Caller(submit_ahead if n % 2 else submit_many) for n in range(8)]
        assert [caller.outcome() for caller in callers] == [list(range(50)), list(range(200))] * 4
        seen = pool.statistics()
    assert seen.most_queued <= 4
    assert seen.most_running <= 3
    assert seen.most_threads <= 3
    assert seen.completed == 1000


def test_submit_waits_until_there_is_room() -> None:
    with WorkerPool(1, max_pending=0) as pool:
        gate = occupy(pool, 1)
        caller = Caller(lambda: pool.submit(abs, -7).result(LIMIT))
        until(lambda: pool.statistics().blocked == 1)
        gate.open()
        assert caller.outcome() == 7


def test_submit_within_gives_up_after_its_time_and_the_task_never_runs() -> None:
    ran = threading.Event()
    with WorkerPool(1, max_pending=0) as pool:
        gate = occupy(pool, 1)
        with pytest.raises(PoolFull, match=r"for 0\.01 s"):
            pool.submit_within(0.01, ran.set)
        with pytest.raises(PoolFull):
            pool.submit_within(0, ran.set)
        assert pool.statistics().blocked == 0
        gate.open()
    assert not ran.is_set()


def test_submit_within_is_served_when_room_appears_in_time() -> None:
    with WorkerPool(1, max_pending=0) as pool:
        gate = occupy(pool, 1)
        caller = Caller(lambda: pool.submit_within(LIMIT, abs, -7).result(LIMIT))
        until(lambda: pool.statistics().blocked == 1)
        gate.open()
        assert caller.outcome() == 7


@pytest.mark.parametrize("seconds", [-1, float("nan")])
def test_a_time_that_is_no_time_is_refused(seconds: float) -> None:
    with WorkerPool(1) as pool, pytest.raises(ValueError, match="seconds must not be negative"):
        pool.submit_within(seconds, abs, -1)


def test_an_endless_time_limit_is_accepted() -> None:
    with WorkerPool(1, max_pending=0) as pool:
        gate = occupy(pool, 1)
        caller = Caller(lambda: pool.submit_within(float("inf"), abs, -7).result(LIMIT))
        until(lambda: pool.statistics().blocked == 1)
        gate.open()
        assert caller.outcome() == 7


def test_blocked_submitters_are_served_in_the_order_in_which_they_came() -> None:
    order: list[int] = []
    with WorkerPool(1, max_pending=1) as pool:
        gate = occupy(pool, 1)
        pool.submit(order.append, 0)
        callers = []
        for n in range(1, 8):
            callers.append(Caller(lambda n=n: pool.submit(order.append, n)))  # type: ignore[misc]
            until(lambda n=n: pool.statistics().blocked == n)  # type: ignore[misc]
        gate.open()
        for caller in callers:
            caller.outcome()
    assert order == list(range(8))


def test_a_later_submitter_cannot_take_the_place_that_became_free() -> None:
    with WorkerPool(1, max_pending=1) as pool:
        first = occupy(pool, 1)
        second = Gate()
        pool.submit(second)
        caller = Caller(lambda: pool.submit(abs, -7))
        until(lambda: pool.statistics().blocked == 1)
        first.open()
        second.await_begun()
        # The place in the queue that the second task has left belongs to the submitter that was blocked.
        with pytest.raises(PoolFull):
            pool.try_submit(abs, -8)
        second.open()
        future = caller.outcome()
        assert isinstance(future, Future)
        assert future.result(LIMIT) == 7


def test_cancelling_a_waiting_task_frees_its_place_at_once() -> None:
    with WorkerPool(1, max_pending=1) as pool:
        gate = occupy(pool, 1)
        waiting = pool.submit(abs, -1)
        caller = Caller(lambda: pool.submit(abs, -2))
        until(lambda: pool.statistics().blocked == 1)
        assert waiting.cancel()
        future = caller.outcome()  # although the only worker is still busy
        assert isinstance(future, Future)
        assert future.cancel()
        assert future.cancel(), "cancelling again changes nothing"
        third = pool.try_submit(abs, -3)
        with pytest.raises(PoolFull):
            pool.try_submit(abs, -4)
        gate.open()
        assert third.result(LIMIT) == 3


def test_a_watched_future_frees_its_place_when_cancelled_too() -> None:
    with WorkerPool(1, max_pending=1) as pool:
        gate = occupy(pool, 1)
        waiting = pool.submit(abs, -1)
        called: list[Future[int]] = []
        waiting.add_done_callback(called.append)
        assert waiting.cancel()
        assert called == [waiting]
        pool.try_submit(abs, -3)
        gate.open()


@pytest.mark.parametrize("max_pending", [2, None])
def test_cancelled_tasks_do_not_pile_up_behind_a_busy_worker(max_pending: int | None) -> None:
    with WorkerPool(1, max_pending=max_pending) as pool:
        gate = occupy(pool, 1)
        kept = pool.submit(abs, -7)
        cancelled = []
        for _ in range(5000):
            cancelled.append(pool.try_submit(abs, -1) if max_pending else pool.submit(abs, -1))
            assert cancelled[-1].cancel()
        # Those taken out of the queue were told, and with them those who wait for them.
        assert len(wait(cancelled, timeout=0).done) > 4800
        forgotten = [weakref.ref(future) for future in cancelled]
        cancelled.clear()
        assert sum(each() is not None for each in forgotten) < 200
        gate.open()
        assert kept.result(LIMIT) == 7
    assert pool.statistics().queued == 0
    assert pool.statistics().most_queued <= 2


@given(st.data())
def test_whatever_is_cancelled_the_others_run_in_the_order_of_their_submission(data: st.DataObject) -> None:
    made: list[int] = []
    with WorkerPool(1) as pool:
        gate = occupy(pool, 1)
        waiting: dict[int, Future[None]] = {}
        for number in range(data.draw(st.integers(0, 400))):
            waiting[number] = pool.submit(made.append, number)
            # Mostly the newest and the oldest: so the cancelled ones become many on either side of the living.
            if len(waiting) > 3 and number % 5:
                waiting.pop(data.draw(st.sampled_from([min(waiting), max(waiting)]))).cancel()
        assert pool.statistics().queued == len(waiting)
        gate.open()
    assert made == list(waiting)


def test_who_submits_while_others_cancel_is_served_in_his_own_order() -> None:
    made: list[int] = []
    with WorkerPool(1) as pool:
        gate = occupy(pool, 1)
        done = threading.Event()

        def cancel_many() -> None:
            while not done.is_set():
                for future in [pool.submit(abs, -1) for _ in range(100)]:
                    future.cancel()

        canceller = Caller(cancel_many)
        for number in range(5000):
            pool.submit(made.append, number)
        done.set()
        canceller.outcome()
        gate.open()
    assert made == list(range(5000))


def test_shutdown_refuses_those_who_wait_for_room() -> None:
    pool = WorkerPool(1, max_pending=0)
    gate = occupy(pool, 1)
    callers = [Caller(lambda: pool.submit(abs, -1)), Caller(lambda: pool.submit_within(LIMIT, abs, -1))]
    until(lambda: pool.statistics().blocked == 2)
    pool.shutdown(wait=False)
    for caller in callers:
        with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
            caller.outcome()
    gate.open()
    pool.shutdown()


def test_a_failing_initializer_refuses_those_who_wait_for_room() -> None:
    gate = Gate()

    def fail() -> None:
        gate()
        raise ValueError("no tools")

    pool = WorkerPool(1, initializer=fail, max_pending=1)
    futures = [pool.submit(abs, -1), pool.submit(abs, -2)]
    caller = Caller(lambda: pool.submit(abs, -3))
    until(lambda: pool.statistics().blocked == 1)
    gate.open()
    with pytest.raises(BrokenThreadPool):
        caller.outcome()
    for future in futures:
        with pytest.raises(BrokenThreadPool):
            future.result(LIMIT)
    pool.shutdown()


def test_a_task_may_submit_to_its_own_full_pool() -> None:
    with WorkerPool(1, max_pending=0) as pool:

        def parent() -> Future[int]:
            return pool.submit(abs, -7)

        assert pool.submit(parent).result(LIMIT).result(LIMIT) == 7


def test_a_task_that_can_be_refused_keeps_to_the_bound_of_its_own_pool() -> None:
    with WorkerPool(1, max_pending=0) as pool:

        def refused() -> None:
            with pytest.raises(PoolFull):
                pool.try_submit(abs, -7)
            with pytest.raises(PoolFull):
                pool.submit_within(0.001, abs, -7)

        pool.submit(refused).result(LIMIT)


def test_a_tree_of_tasks_runs_in_a_pool_of_one_worker_without_a_queue() -> None:
    leaves: list[int] = []
    done = threading.Event()

    with WorkerPool(1, max_pending=0) as pool:

        def grow(depth: int) -> None:
            if depth:
                pool.submit(grow, depth - 1)
                pool.submit(grow, depth - 1)
            else:
                leaves.append(depth)
                if len(leaves) == 64:
                    done.set()

        pool.submit(grow, 6)
        assert done.wait(LIMIT)


class TestMap:
    """``map`` in a bounded pool."""

    def test_gives_the_results_in_order(self) -> None:
        with WorkerPool(3, max_pending=2) as pool:
            assert list(pool.map(pow, range(100), itertools.repeat(2))) == [n * n for n in range(100)]

    def test_takes_from_an_endless_iterable(self) -> None:
        with WorkerPool(2, max_pending=1) as pool:
            squares = pool.map(pow, itertools.count(), itertools.repeat(2))
            assert list(itertools.islice(squares, 50)) == [n * n for n in range(50)]

    def test_submits_at_once_what_there_is_room_for_and_no_more(self) -> None:
        taken: list[int] = []

        def numbers() -> itertools.chain[int]:
            return itertools.chain.from_iterable([taken.append(n) or n] for n in range(100))  # type: ignore[func-returns-value]

        gate = Gate()
        with WorkerPool(2, max_pending=3) as pool:
            results = pool.map(gate, numbers())
            gate.await_begun(2)
            assert pool.statistics().queued == 3
            assert len(taken) == 5
            gate.open()
            assert list(results) == list(range(100))
            assert pool.statistics().most_queued == 3

    def test_holds_no_more_results_than_the_bound(self) -> None:
        called: list[int] = []
        with WorkerPool(2, max_pending=3) as pool:
            results = pool.map(called.append, range(100))
            until(lambda: len(called) == 5)
            next(results)
            until(lambda: len(called) == 6)
            assert len(list(results)) == 99

    def test_waits_for_room_if_others_fill_the_pool(self) -> None:
        with WorkerPool(1, max_pending=0) as pool:
            gate = occupy(pool, 1)
            results = pool.map(abs, [-1, -2])
            caller = Caller(lambda: list(results))
            until(lambda: pool.statistics().blocked == 1)
            gate.open()
            assert caller.outcome() == [1, 2]

    def test_runs_out_of_time_waiting_for_room(self) -> None:
        with WorkerPool(1, max_pending=0) as pool:
            gate = occupy(pool, 1)
            with pytest.raises(TimeoutError):
                next(pool.map(abs, [-1], timeout=0.01))
            gate.open()

    def test_runs_out_of_time_waiting_for_a_result_and_cancels_the_rest(self) -> None:
        with WorkerPool(1, max_pending=2) as pool:
            gate = Gate()
            ran: list[int] = []
            results = pool.map(lambda n: gate() if n == 0 else ran.append(n), range(3), timeout=0.01)
            with pytest.raises(TimeoutError):
                next(results)
            gate.open()
        assert ran == []

    def test_raises_what_a_call_raised_in_its_turn(self) -> None:
        with WorkerPool(2, max_pending=1) as pool:
            results = pool.map(divmod, [6, 6, 6], [3, 0, 2])
            assert next(results) == (2, 0)
            with pytest.raises(ZeroDivisionError):
                next(results)

    def test_gives_the_results_there_are_before_it_reports_the_shutdown(self) -> None:
        pool = WorkerPool(1, max_pending=1)
        results = pool.map(abs, range(-5, 0))
        pool.shutdown()
        assert [next(results), next(results)] == [5, 4]
        with pytest.raises(RuntimeError, match="after shutdown"):
            next(results)

    def test_works_inside_a_task_of_the_same_pool(self) -> None:
        with WorkerPool(2, max_pending=0) as pool:
            assert pool.submit(lambda: list(pool.map(abs, range(-20, 0)))).result(LIMIT) == list(range(20, 0, -1))

    def test_of_nothing_is_nothing(self) -> None:
        with WorkerPool(1, max_pending=0) as pool:
            assert list(pool.map(abs, [])) == []

    @pytest.mark.parametrize("max_pending", [None, 1])
    def test_takes_no_more_arguments_than_its_buffersize_before_results_are_taken(
        self, max_pending: int | None
    ) -> None:
        numbers = itertools.count()
        with WorkerPool(2, max_pending=max_pending) as pool:
            results = pool.map(str, numbers, buffersize=2)
            assert next(numbers) == 2
            assert [next(results), next(results)] == ["0", "1"]
            assert next(numbers) == 5, "two more, 3 and 4, for the two results"

    @pytest.mark.parametrize("buffersize", [1, 3, 100, True])
    def test_gives_the_same_results_whatever_its_buffersize(self, buffersize: int) -> None:
        with WorkerPool(2, max_pending=1) as bounded, WorkerPool(2) as unbounded:
            for pool in (bounded, unbounded):
                assert list(pool.map(pow, range(50), itertools.repeat(2), buffersize=buffersize)) == [
                    n * n for n in range(50)
                ]
                assert list(pool.map(abs, [], buffersize=buffersize)) == []

    @pytest.mark.parametrize("max_pending", [None, 1])
    def test_refuses_a_buffersize_as_the_standard_library_does(self, max_pending: int | None) -> None:
        with WorkerPool(1, max_pending=max_pending) as pool:
            for wrong in ("2", 2.0):
                with pytest.raises(TypeError, match=r"^buffersize must be an integer or None$"):
                    pool.map(abs, [], buffersize=wrong)  # type: ignore[arg-type]
            for wrong in (0, -1):
                with pytest.raises(ValueError, match=r"^buffersize must be None or > 0$"):
                    pool.map(abs, [], buffersize=wrong)

    def test_does_not_ask_an_iterable_again_that_has_ended(self) -> None:
        longer = iter(range(10))
        with WorkerPool(2) as pool:
            assert list(pool.map(pow, longer, [2, 2, 2], buffersize=2)) == [0, 1, 4]
        assert next(longer) == 4
