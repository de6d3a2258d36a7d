"""``blocking-aware``: workers come while jobs block, and not while they compute."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic, monotonic_ns, thread_time

import pytest

from migpool.core.buffers import Conduit
from migpool.core.cancel import CancelSwitch
from migpool.core.effects import Credit, ReadState, Send, Steps
from migpool.core.handlers import Handlers
from migpool.core.interpreter import Interpreter, Job
from migpool.core.machine import Machine
from migpool.core.thread_state import ThreadState
from migpool.core.threads import ThreadGroup
from migpool.core.trace import Tracer
from migpool.schedulers import Setup
from migpool.schedulers.blocking_aware import BlockingAwareScheduler, Worker
from tests.support import LONG
from tests.support.rig import Scripted

pytestmark = pytest.mark.alone  # what the model sees of its workers is also what else runs on the processors

LIMIT = 20.0
CPUS = len(os.sched_getaffinity(0))


class Bench:
    """The model at the source of a machine whose reads are a function of the test's."""

    def __init__(
        self,
        devices: int,
        read: Callable[[ReadState], int],
        workers: int | None = None,
        send: Callable[[Send], None] | None = None,
        credit: Callable[[Credit], int] | None = None,
    ) -> None:
        self.machine = Machine("m", [Scripted(number) for number in range(devices)])
        handlers = Handlers()
        handlers.on(ReadState, read)
        handlers.on(Credit, credit or (lambda _: 1))
        handlers.on(Send, send or (lambda _: None))
        self.switch, self.threads = CancelSwitch(), ThreadGroup(LIMIT)
        self.scheduler = BlockingAwareScheduler()
        interpreter = Interpreter(handlers, threading.Lock(), Tracer(), self.switch)
        self.scheduler.setup(
            Setup("source", self.machine.iterable, 2, interpreter, self.threads, self.switch, workers=workers)
        )

    def run_all(self) -> None:
        for slot in self.machine.iterable:

            def steps(slot: object = slot) -> Steps:
                yield ReadState(slot, 0, Conduit.__new__(Conduit))  # type: ignore[arg-type]
                yield Credit(slot, 0)  # type: ignore[arg-type]
                yield Send(slot, 0, b"")  # type: ignore[arg-type]

            self.scheduler.submit(Job("save", steps(), slot))
        self.scheduler.drain()

    @property
    def workers(self) -> int:
        """The most there were, without the thread that looks at them."""
        return self.threads.peak - 1


@contextmanager
def bench(
    devices: int,
    read: Callable[[ReadState], int],
    workers: int | None = None,
    send: Callable[[Send], None] | None = None,
    credit: Callable[[Credit], int] | None = None,
) -> Iterator[Bench]:
    made = Bench(devices, read, workers, send, credit)
    try:
        yield made
    finally:
        made.switch.cancel()
        made.scheduler.close()
        made.threads.close()


def test_when_all_workers_block_every_job_is_begun_all_the_same() -> None:
    devices = 4 * CPUS + 3
    together = threading.Barrier(devices)

    def read(effect: ReadState) -> int:
        del effect
        together.wait(LIMIT)  # returns only when every job is in here
        return 1

    with bench(devices, read) as made:
        made.run_all()
        assert made.workers == devices


class Blocking:
    """The kernel's word on a thread that has computed nothing since it began, and waits."""

    def computed(self) -> int:
        return 0

    def runnable(self) -> bool:
        return False


def test_workers_that_began_at_different_moments_are_seen_to_block_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each judged by windows of its own: at no look did those of all end, and jobs waited for a worker for ever."""
    monkeypatch.setattr("migpool.schedulers.blocking_aware.ThreadState", Blocking)
    now = 0
    monkeypatch.setattr("migpool.schedulers.blocking_aware.monotonic_ns", lambda: now)
    window, step, workers = 20, 4, []
    for began in range(2 * window):  # two windows long one begins every nanosecond, and is looked at every few
        now = began
        workers.append(Worker())
        workers[-1].begin()
        workers[-1].inside = ReadState.__new__(ReadState)
        if began % step == 0:
            assert sum(worker.blocks_in(window, 0.25) is not None for worker in workers) <= max(0, began - window + 1)
    for _ in range(1 + window // step):
        now += step
        blocked = [worker.blocks_in(window, 0.25) for worker in workers]
    for _ in range(2 * window):
        assert blocked == [ReadState] * len(workers)
        now += step
        blocked = [worker.blocks_in(window, 0.25) for worker in workers]


class Computing:
    """The kernel's word on a thread that has used every moment since it began."""

    def computed(self) -> int:
        return monotonic_ns()

    def runnable(self) -> bool:
        return True


def test_jobs_that_compute_get_no_more_workers_than_there_are_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("migpool.schedulers.blocking_aware.ThreadState", Computing)
    pause = threading.Event()

    def read(effect: ReadState) -> int:
        del effect
        pause.wait(0.02)  # long enough for several looks, at each of which a worker could be added
        return 1

    with bench(4 * CPUS, read) as made:
        made.run_all()
        assert made.workers == CPUS


def test_by_the_kernels_word_too_they_get_few_more() -> None:
    def read(effect: ReadState) -> int:
        del effect
        end = thread_time() + 0.02
        while thread_time() < end:
            sum(range(1000))
        return 1

    with bench(CPUS + (62 if LONG else 30), read) as made:
        made.run_all()
        # A machine that is busy with other things may keep a thread that computes from computing for a whole window.
        assert made.workers <= CPUS + 8


def test_workers_that_wait_for_a_channel_are_no_reason_for_another_one() -> None:
    channels = threading.Semaphore(2)
    release = threading.Event()
    sending: list[Send] = []

    def send(effect: Send) -> None:
        sending.append(effect)
        with channels:
            # Long enough for several looks, at each of which a worker could be added.
            release.wait(0.02)

    devices = 4 * (2 + CPUS)
    with bench(devices, lambda _: 1, send=send) as made:
        made.run_all()
        assert len(sending) == devices
        # As many as there are channels block, as many as there are CPUs may be runnable, and once both come together.
        assert made.workers <= 2 * (2 + CPUS)


def test_a_job_without_credit_keeps_no_other_device_from_the_chunk_that_it_has_credit_for() -> None:
    devices = 4 * CPUS + 3
    together = threading.Barrier(devices)

    def credit(effect: Credit) -> int:
        del effect
        together.wait(LIMIT)  # as where each device of the destination takes long over its first chunk
        return 1

    with bench(devices, lambda _: 1, credit=credit) as made:
        made.run_all()
        # One more, if a worker was being added for a job that another one took up just then.
        assert devices <= made.workers <= devices + 1


def test_beyond_the_limit_jobs_wait_for_a_worker() -> None:
    inside: list[ReadState] = []
    most: list[int] = []

    def read(effect: ReadState) -> int:
        inside.append(effect)
        most.append(len(inside))
        threading.Event().wait(0.005)
        inside.pop()
        return 1

    with bench(12, read, workers=3) as made:
        made.run_all()
        assert len(most) == 12
        assert max(most) <= 3
        assert made.workers <= 3


def test_a_thread_that_cannot_be_had_fails_the_migration(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def read(effect: ReadState) -> int:
        del effect
        assert release.wait(LIMIT)
        return 1

    with bench(CPUS + 1, read) as made:
        start = ThreadGroup.start

        def refuse(group: ThreadGroup, name: str, run: Callable[[], None]) -> threading.Thread:
            if name.endswith(f"-{CPUS}"):
                release.set()
                raise RuntimeError("can't start new thread")
            return start(group, name, run)

        monkeypatch.setattr(ThreadGroup, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            made.run_all()


def test_a_thread_is_told_computing_from_waiting() -> None:
    states: list[ThreadState] = []
    ready, release = threading.Event(), threading.Event()

    def wait() -> None:
        states.append(ThreadState())
        ready.set()
        assert release.wait(LIMIT)

    waiting = threading.Thread(target=wait)
    waiting.start()
    assert ready.wait(LIMIT)
    own, other = ThreadState(), states[0]
    assert own.runnable()
    deadline = monotonic() + LIMIT
    while other.runnable():
        assert monotonic() < deadline
    began = own.computed()
    # It may have stood still before it came to its wait: for the interpreter, or for a processor.
    before = None
    while other.computed() != before:
        assert monotonic() < deadline
        before = other.computed()
        sum(range(100_000))
    assert own.computed() > began
    release.set()
    waiting.join(LIMIT)
