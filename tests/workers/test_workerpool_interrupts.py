"""Guarantee 11: signal handlers that raise and finalizers that submit, at any instruction, leave the pool intact."""

from __future__ import annotations

import gc
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from types import FrameType

import pytest

from migpool.workers.lock import ConvoyFreeLock
from migpool.workers.pool import WorkerPool
from migpool.workers.thread import WorkerThread
from tests.support.pool_gates import LIMIT, Caller, Gate, until

# The signal by which others are ended strikes here.
pytestmark = pytest.mark.timeout(method="thread")

STRIKES = 400
ROUND = 0.0007  # seconds between two signals: some hundred submissions


class Strike(BaseException):
    """What the signal handler raises, as that of Ctrl-C raises KeyboardInterrupt."""


class Striker:
    """Raises Strike in the main thread again and again, while it is armed."""

    def __init__(self) -> None:
        self.armed = False
        self.strikes = 0

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        if self.armed:
            self.armed = False
            self.strikes += 1
            raise Strike

    def lost(self, unraisable: sys.UnraisableHookArgs) -> None:
        """A strike in a finalizer can be raised nowhere: it is made anew."""
        if unraisable.exc_type is Strike:
            self.strikes -= 1
            self.armed = True
        else:
            sys.__unraisablehook__(unraisable)


@pytest.fixture
def striker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Striker]:
    striker = Striker()
    monkeypatch.setattr(sys, "unraisablehook", striker.lost)
    before = signal.signal(signal.SIGALRM, striker)
    signal.setitimer(signal.ITIMER_REAL, ROUND, ROUND)
    yield striker
    striker.armed = False
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def submit_until(deadline: float, striker: Striker, pool: WorkerPool, futures: list[Future[int]]) -> None:
    """Submit until a strike or the deadline. A function of its own: a strike at the jump of a loop is not always inside
    the ``try`` around that loop, while one in a call is."""
    striker.armed = True
    while time.monotonic() < deadline:
        futures.append(pool.submit(abs, -1))
        if len(futures) > 50:
            futures.pop().result(LIMIT)
            futures[0].cancel()
            futures.clear()
    striker.armed = False


@pytest.mark.parametrize("max_pending", [None, 2, 0])
def test_a_pool_survives_hundreds_of_interrupted_submissions(striker: Striker, max_pending: int | None) -> None:
    futures: list[Future[int]] = []
    deadline = time.monotonic() + LIMIT
    with WorkerPool(3, max_pending=max_pending, idle_timeout=0.05) as pool:
        while striker.strikes < STRIKES:
            try:
                submit_until(deadline, striker, pool, futures)
            except Strike:
                continue
            break
        assert striker.strikes > 0
        # All three workers can still be had at once, and no more than three; everything else comes to rest.
        gate = Gate()
        callers = [pool.submit(gate) for _ in range(3)]
        gate.await_begun(3)
        assert pool.statistics().most_threads == 3
        gate.open()
        assert [caller.result(LIMIT) for caller in callers] == [0, 0, 0]
        until(lambda: pool.statistics().threads == 0)
        seen = pool.statistics()
    assert (seen.queued, seen.running, seen.blocked) == (0, 0, 0)


@pytest.mark.parametrize("strikes", ["c_call", "c_return"])
def test_a_submission_that_is_interrupted_as_the_last_worker_falls_idle_leaves_the_pool_at_work(strikes: str) -> None:
    # What the test above meets by chance: the strike comes when the task is appended to the queue that the busy worker
    # was to see, or just before, and that worker has looked there meanwhile.
    gate = Gate()
    with WorkerPool(1) as pool:

        def strike(_frame: FrameType, event: str, called: object) -> None:
            if event not in ("c_call", "c_return") or not isinstance(getattr(called, "__self__", None), deque):
                return
            if event == "c_call":
                sys.setprofile(None)
                gate.open()
                until(lambda: pool.statistics().running == 0)
                sys.setprofile(strike)
            if event == strikes:
                sys.setprofile(None)
                raise Strike

        pool.submit(gate)
        gate.await_begun()
        sys.setprofile(strike)
        try:
            with pytest.raises(Strike):
                pool.submit(abs, -1)
        finally:
            sys.setprofile(None)
        assert pool.submit(abs, -2).result(LIMIT) == 2
        assert pool.statistics().queued == 0


def test_a_thread_whose_start_was_interrupted_is_listed_only_while_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "_start_joinable_thread" if hasattr(threading, "_start_joinable_thread") else "_start_new_thread"
    begin, ran = getattr(threading, name), threading.Event()
    asked: list[tuple[tuple[object, ...], dict[str, object]]] = []

    def interrupted(*args: object, **kwargs: object) -> None:
        asked.append((args, kwargs))
        raise Strike

    monkeypatch.setattr(threading, name, interrupted)
    thread = WorkerThread(ran.set, "interrupted")
    with pytest.raises(Strike):
        thread.start()
    thread.give_up()
    assert thread not in threading.enumerate()
    ((args, kwargs),) = asked
    begin(*args, **kwargs)  # as if the strike had come after the kernel had it
    assert ran.wait(LIMIT)
    until(lambda: thread not in threading.enumerate())


def test_an_interrupted_wait_for_room_leaves_the_line(striker: Striker) -> None:
    ran = threading.Event()
    with WorkerPool(1, max_pending=0) as pool:
        gate = Gate()
        pool.submit(gate)
        gate.await_begun()
        try:
            striker.armed = True
            pool.submit(ran.set)
        except Strike:
            pass
        assert pool.statistics().blocked == 0
        gate.open()
    assert not ran.is_set()


def test_an_interrupted_wait_for_a_result_can_be_taken_up_again(striker: Striker) -> None:
    with WorkerPool(1) as pool:
        gate = Gate()
        future = pool.submit(gate, 7)
        gate.await_begun()
        try:
            striker.armed = True
            future.result(LIMIT)
        except Strike:
            pass
        assert striker.strikes == 1
        gate.open()
        assert future.result(LIMIT) == 7


def taken(lock: ConvoyFreeLock) -> bool:
    with lock:
        return True


def test_a_lock_is_free_after_every_interruption(striker: Striker) -> None:
    lock = ConvoyFreeLock()
    deadline = time.monotonic() + LIMIT
    while striker.strikes < STRIKES and time.monotonic() < deadline:
        try:
            striker.armed = True
            while True:
                with lock:
                    abs(-1)
        except Strike:
            assert Caller(lambda: taken(lock)).outcome()
    assert striker.strikes > 0


def test_a_finalizer_may_use_the_pool_wherever_it_strikes() -> None:
    futures: list[Future[int]] = []
    with WorkerPool(2, max_pending=None) as pool:

        class Submitting:
            def __init__(self) -> None:
                self.itself = self  # only the collector can free it

            def __del__(self) -> None:
                futures.append(pool.submit(abs, -1))
                futures.append(pool.submit(abs, -2))
                futures[-1].cancel()

        thresholds = gc.get_threshold()
        gc.set_threshold(3)
        try:
            for _ in range(2000):
                Submitting()
                pool.submit(abs, -1).result(LIMIT)
        finally:
            gc.set_threshold(*thresholds)
        gc.collect()
        for future in futures:
            assert future.cancelled() or future.result(LIMIT) in (1, 2)
        assert len(futures) == 4000
        assert pool.statistics().most_threads <= 2


def test_a_lock_is_reentrant_and_excludes_other_threads() -> None:
    lock = ConvoyFreeLock()
    counted = [0]

    def count() -> None:
        for _ in range(20_000):
            with lock, lock:
                value = counted[0]
                counted[0] = value + 1

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    assert counted == [80_000]
