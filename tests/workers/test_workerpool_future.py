"""TaskFuture: a standard Future that makes its Condition when somebody watches it; its guarantees stand in its file."""

from __future__ import annotations

import gc
import logging
import threading
import time
from concurrent.futures import CancelledError, Future, InvalidStateError, as_completed, wait

import pytest

from migpool.workers.dispatcher import UNBOUNDED, Dispatcher
from migpool.workers.future import TaskFuture
from migpool.workers.pool import WorkerPool
from tests.support.pool_gates import LIMIT, Caller, Gate, occupy, until_blocked


def bare_future() -> TaskFuture[int]:
    """A future that nobody will run."""
    return TaskFuture(Dispatcher(1, UNBOUNDED, None, "unused", None), abs, (-1,), {})


def watched_future() -> TaskFuture[int]:
    future = bare_future()
    assert not wait([future], timeout=0).done
    return future


@pytest.fixture(params=[bare_future, watched_future])
def future(request: pytest.FixtureRequest) -> TaskFuture[int]:
    made = request.param()
    assert isinstance(made, TaskFuture)
    return made


def test_a_future_that_nobody_watches_never_makes_a_condition() -> None:
    with WorkerPool(1) as pool:
        gate = occupy(pool, 1)
        future = pool.submit(abs, -7)
        caller = Caller(lambda: future.result(LIMIT))
        gate.open()
        assert caller.outcome() == 7
        assert isinstance(future, TaskFuture)
        assert future.done()
        assert not future.cancel()
        assert future.exception() is None
        assert not any(isinstance(one, threading.Condition) for one in gc.get_referents(future))


def test_its_states_are_those_of_a_standard_future(future: TaskFuture[int]) -> None:
    def states() -> tuple[bool, bool, bool]:
        return future.running(), future.cancelled(), future.done()

    assert states() == (False, False, False)
    assert future.begin()
    assert states() == (True, False, False)
    assert not future.cancel()
    future.set_result(3)
    assert states() == (False, False, True)
    assert future.result() == 3
    assert future.exception() is None
    with pytest.raises(InvalidStateError):
        future.set_result(4)
    with pytest.raises(InvalidStateError):
        future.set_exception(ValueError())
    with pytest.raises(RuntimeError):
        future.set_running_or_notify_cancel()


def test_a_cancelled_future_does_not_begin(future: TaskFuture[int]) -> None:
    assert future.cancel()
    assert not future.begin()
    with pytest.raises(CancelledError):
        future.result(0)
    with pytest.raises(CancelledError):
        future.exception(0)
    assert wait([future], 0).done == {future}


def test_nothing_is_waited_for_longer_than_asked(future: TaskFuture[int]) -> None:
    for seconds in (0, 0.01, -1):
        with pytest.raises(TimeoutError):
            future.result(seconds)
        with pytest.raises(TimeoutError):
            future.exception(seconds)
    kept = [one for one in gc.get_referents(future) if isinstance(one, list)]
    assert not any(kept), "those who gave up are forgotten"


def test_everyone_who_waits_for_a_result_gets_it(future: TaskFuture[int]) -> None:
    callers = [Caller(lambda: future.result(LIMIT)) for _ in range(5)]
    until_blocked(*callers)
    callers.append(Caller(lambda: future.exception(LIMIT)))
    waited: list[Future[int]] = [future]
    callers.append(Caller(lambda: len(list(as_completed(waited, LIMIT)))))
    future.set_result(7)
    assert [caller.outcome() for caller in callers] == [7, 7, 7, 7, 7, None, 1]


def test_everyone_who_waits_for_a_result_hears_of_a_cancellation(future: TaskFuture[int]) -> None:
    callers = [Caller(lambda: future.result(LIMIT)) for _ in range(5)]
    until_blocked(*callers)
    assert future.cancel()
    for caller in callers:
        with pytest.raises(CancelledError):
            caller.outcome()


def test_who_waits_for_the_result_is_woken_before_the_callbacks_run(future: TaskFuture[int]) -> None:
    caller = Caller(lambda: future.result(LIMIT))
    until_blocked(caller)
    future.add_done_callback(lambda _: caller.join(LIMIT))
    future.set_result(7)
    assert not caller.is_alive()
    assert caller.outcome() == 7


def test_repr_tells_the_state(future: TaskFuture[int]) -> None:
    assert "state=pending" in repr(future)
    future.begin()
    assert "state=running" in repr(future)
    future.set_exception(KeyError("gone"))
    assert "state=finished raised KeyError" in repr(future)


def test_a_callback_that_fails_is_logged_and_the_others_are_called(
    future: TaskFuture[int], caplog: pytest.LogCaptureFixture
) -> None:
    called: list[Future[int]] = []
    future.add_done_callback(lambda _: 1 // 0)
    future.add_done_callback(called.append)
    with caplog.at_level(logging.ERROR, "concurrent.futures"):
        future.set_result(1)
    assert called == [future]
    assert "exception calling callback" in caplog.text


def test_a_future_that_is_watched_while_it_runs_is_settled_under_its_condition() -> None:
    with WorkerPool(1) as pool:
        gate = Gate()
        future = pool.submit(gate, 7)
        gate.await_begun()
        with future._condition:  # noqa: SLF001 -- as the functions of concurrent.futures do, which is why
            gate.open()
            # The worker has the result, and may not publish it as long as somebody holds the Condition.
            with pytest.raises(TimeoutError):
                until_done(future, 0.05)
        assert future.result(LIMIT) == 7


def until_done(future: Future[int], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not future.done():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.001)


def test_cancelling_and_beginning_race_to_one_winner() -> None:
    with WorkerPool(2) as pool:
        for round_ in range(500):
            ran = threading.Event()
            future = pool.submit(ran.set)
            if round_ % 2:
                assert wait([future], timeout=0)
            if future.cancel():
                assert wait([future], LIMIT).done == {future}
                assert not ran.is_set()
            else:
                future.result(LIMIT)
                assert ran.is_set()
