"""``elastic``: it grows while jobs wait, by one thread at a time, and no further than it may."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from migpool.core.cancel import CancelSwitch
from migpool.core.effects import Release, Steps
from migpool.core.handlers import Handlers
from migpool.core.interpreter import Interpreter, Job
from migpool.core.machine import Machine
from migpool.core.threads import ThreadGroup
from migpool.core.trace import Tracer
from migpool.schedulers import Setup
from migpool.schedulers.elastic import ElasticScheduler
from migpool.workers.thread import WorkerThread
from tests.support.rig import Scripted

LIMIT = 20.0


class Bench(ExitStack):
    """The model with jobs that call a function of the test's."""

    def __init__(self, does: Callable[[], object], workers: int | None = None, *words: str) -> None:
        super().__init__()
        handlers = Handlers()

        def release(effect: Release) -> None:
            del effect
            does()

        handlers.on(Release, release)
        self.switch, self.threads = CancelSwitch(), ThreadGroup(LIMIT)
        self.slot = Machine("m", [Scripted(0)]).slots[0]
        self.scheduler = ElasticScheduler()
        self.scheduler.chosen = frozenset(words)
        interpreter = Interpreter(handlers, threading.Lock(), Tracer(), self.switch)
        self.callback(self.threads.close)
        self.callback(self.scheduler.close)
        self.scheduler.begin(Setup("source", (), 2, interpreter, self.threads, self.switch, workers=workers))

    def submit(self, jobs: int) -> None:
        def steps() -> Steps:
            yield Release(self.slot, None)  # type: ignore[arg-type]

        for _ in range(jobs):
            self.scheduler.take(Job("job", steps(), self.slot))


def test_as_many_jobs_as_wait_for_each_other_are_under_way_at_once() -> None:
    jobs = 60
    together = threading.Barrier(jobs)
    with Bench(lambda: together.wait(LIMIT)) as bench:
        bench.submit(jobs)
        bench.scheduler.drain()
        assert bench.threads.peak == jobs
        bench.submit(jobs)
        bench.scheduler.drain()
        assert bench.threads.peak == jobs, "threads that are idle do what comes next"


def test_a_job_that_a_job_submits_finds_a_thread() -> None:
    begun = threading.Event()
    calls: list[None] = []

    def does() -> None:
        calls.append(None)
        if len(calls) == 1:
            bench.submit(1)
            assert begun.wait(LIMIT), "the second job waits for the first one's thread"
        else:
            begun.set()

    with Bench(does) as bench:
        bench.submit(1)
        bench.scheduler.drain()
        assert bench.threads.peak == 2


def test_no_more_threads_than_the_limit() -> None:
    gate = threading.Barrier(3)
    with Bench(lambda: gate.wait(LIMIT), 3) as bench:
        bench.submit(30)
        bench.scheduler.drain()
        assert bench.threads.peak == 3


def test_jobs_that_do_not_block_need_few_threads() -> None:
    # The first job keeps its thread until all others are done: they are, though nobody makes a thread for each.
    done = threading.Semaphore(0)
    first = threading.Lock()

    def does() -> None:
        if first.acquire(blocking=False):
            for _ in range(199):
                assert done.acquire(timeout=LIMIT)
        else:
            done.release()

    with Bench(does) as bench:
        bench.submit(200)
        bench.scheduler.drain()


def test_without_a_second_thread_the_first_one_does_it_all(monkeypatch: pytest.MonkeyPatch) -> None:
    real = WorkerThread.start
    started: list[WorkerThread] = []

    def start(thread: WorkerThread) -> None:
        if started:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        real(thread)

    monkeypatch.setattr(WorkerThread, "start", start)
    calls: list[None] = []
    gate = threading.Event()

    def does() -> None:
        assert gate.wait(LIMIT)
        calls.append(None)

    with Bench(does) as bench:
        bench.submit(20)
        gate.set()
        bench.scheduler.drain()
    assert len(calls) == 20
