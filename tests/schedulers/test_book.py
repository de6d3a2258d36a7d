"""The book of jobs: a job that nobody begins is found, and none that only takes its time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from migpool.core.buffers import Chunk
from migpool.core.cancel import CancelSwitch
from migpool.core.effects import Acquire, Effect, NextChunk, Steps
from migpool.core.handlers import Handlers
from migpool.core.interpreter import Interpreter, Job
from migpool.core.machine import Machine
from migpool.core.threads import ThreadGroup
from migpool.core.trace import Tracer
from migpool.errors import PluginError, TimeLimitExceeded
from migpool.schedulers import Scheduler, Setup
from migpool.schedulers.book import Book
from migpool.schedulers.pool import PoolScheduler
from tests.support.rig import LIMIT, Scripted

SHORT = 0.4
"""A limit that a test waits out."""


class Drops(Scheduler):
    """Accepts, and runs nothing."""

    def submit(self, job: Job) -> None:
        self.accept(job)


class Bench:
    """A model whose jobs wait at gates."""

    def __init__(self, model: Scheduler, limit: float) -> None:
        self.machine = Machine("m", [Scripted(number) for number in range(3)])
        self.gates = [threading.Semaphore(0) for _ in self.machine]
        self.begun = threading.Event()
        handlers = Handlers()
        handlers.on(Acquire, self._pass)
        handlers.on(NextChunk, self._pass)
        self.switch, self.threads, self.model = CancelSwitch(), ThreadGroup(LIMIT), model
        interpreter = Interpreter(handlers, threading.Lock(), Tracer(), self.switch)
        devices = self.machine.iterable
        model.begin(Setup("source", devices, 2, interpreter, self.threads, self.switch, workers=1, limit=limit))

    def _pass(self, effect: Effect[object]) -> Chunk:
        self.begun.set()
        while not self.gates[effect.slot.number].acquire(timeout=0.01):
            self.switch.check()
        return Chunk.__new__(Chunk)

    def take(self, number: int, kind: type[Acquire | NextChunk]) -> Job:
        slot = self.machine.slots[number]

        def steps() -> Steps:
            yield kind(slot, 0)

        job = Job("save", steps(), slot)
        self.model.take(job)
        return job


@pytest.fixture
def benches() -> Iterator[list[Bench]]:
    made: list[Bench] = []
    yield made
    for bench in made:
        bench.switch.cancel()
        bench.model.close()
        bench.threads.close()


def queueing() -> PoolScheduler:
    model = PoolScheduler()
    model.chosen = frozenset({"queue"})
    return model


def test_jobs_that_nobody_begins_are_told_with_the_models_name(benches: list[Bench]) -> None:
    bench = Bench(Drops(), SHORT)
    benches.append(bench)
    bench.take(0, Acquire)
    bench.take(1, Acquire)
    with pytest.raises(TimeLimitExceeded) as error:
        bench.model.drain()
    assert str(error.value).startswith("threading model 'Drops' at the source: no headway for ")
    assert str(error.value).endswith("0 of 2 jobs ended; accepted and never begun: device-0 (save), device-1 (save)")


def test_a_job_that_waits_for_the_peer_while_others_are_not_begun_is_told(benches: list[Bench]) -> None:
    bench = Bench(queueing(), SHORT)
    benches.append(bench)
    bench.take(0, NextChunk)
    assert bench.begun.wait(LIMIT)
    bench.take(1, NextChunk)
    with pytest.raises(TimeLimitExceeded, match=r"device-0 \(save\) waits for chunk 0 for .* begun: device-1"):
        bench.model.drain()


def test_a_job_that_goes_on_and_on_is_no_error_though_another_waits_for_its_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr("migpool.schedulers.book.time", SimpleNamespace(monotonic=lambda: now))
    book, slot = Book(SHORT), Machine("m", [Scripted(0)]).slots[0]

    def steps() -> Steps:
        for index in range(40):
            yield NextChunk(slot, index)

    first, second = Job("load", steps(), slot), Job("load", steps(), slot)
    book.enter(first)
    book.enter(second)
    book.begin(first)
    for effect in first.steps:
        first.effect, first.since = effect, int(now * 1e9)
        for _ in range(3):  # looks, less than half of the limit in all
            assert not book.stuck(book.quiet(thrown=False))
            now += SHORT / 8
    assert now > 100 + 10 * SHORT
    first.effect = None
    next_to_last = book.quiet(thrown=False)
    now += SHORT
    assert not book.stuck(next_to_last)
    assert book.stuck(book.quiet(thrown=False))


def test_where_every_job_has_begun_the_peer_is_the_judge() -> None:
    book, slot = Book(SHORT), Machine("m", [Scripted(0)]).slots[0]

    def steps() -> Steps:
        yield NextChunk(slot, 0)

    job = Job("load", steps(), slot)
    book.enter(job)
    assert book.stuck(SHORT)
    job.begun, job.effect = True, next(job.steps)
    assert not book.stuck(10 * SHORT)


def test_a_job_in_a_device_may_take_the_whole_limit() -> None:
    book, slot = Book(1.0), Machine("m", [Scripted(0)]).slots[0]

    def steps() -> Steps:
        yield Acquire(slot)

    first, second = (Job("load", steps(), slot) for _ in range(2))
    book.enter(first)
    book.enter(second)
    first.begun, first.effect = True, next(first.steps)
    assert not book.stuck(0.9)
    assert book.stuck(1.0)


def test_a_job_that_runs_never_seems_to_wait_for_a_thread() -> None:
    book, slot = Book(1.0), Machine("m", [Scripted(0)]).slots[0]
    over = threading.Event()

    def steps() -> Steps:
        effect = Acquire(slot)
        while not over.is_set():
            yield effect

    job = Job("save", steps(), slot)
    book.enter(job)
    assert "never begun" in book.standing()
    job.begun, job.effect = True, next(job.steps)
    thread = threading.Thread(target=lambda: [None for _ in job.steps if over.is_set()])
    thread.start()
    try:
        told = {book.standing().partition(": ")[0] for _ in range(20_000)}
    finally:
        over.set()
        thread.join(LIMIT)
    assert not any("never begun" in each for each in told), told


def test_a_job_begins_once_and_ends_once() -> None:
    book, slot = Book(), Machine("m", [Scripted(0)]).slots[0]

    def steps() -> Steps:
        yield Acquire(slot)

    job = Job("load", steps(), slot)
    with pytest.raises(PluginError, match=r"runs device-0 \(load\), which it has not accepted"):
        book.begin(job)
    book.enter(job)
    book.begin(job)
    with pytest.raises(PluginError, match="a second time"):
        book.begin(job)
    book.strike(job)
    with pytest.raises(PluginError, match="which is not open"):
        book.strike(job)
