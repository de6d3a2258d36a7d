"""One suite for every registered threading model, a third party's included: the contract in ``schedulers/base.py``.

The jobs here wait for chunks, as load jobs do, so that the same suite serves models for either side. Chunks are brought
by feeders of the test's own; what a job does with one is part of the test.
"""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import entry_points

import pytest

from migpool.core.cancel import CancelSwitch
from migpool.core.effects import NextChunk, Steps, Wait
from migpool.core.interpreter import Handlers, Interpreter, Job
from migpool.core.machine import Machine, Slot
from migpool.core.threads import ThreadGroup
from migpool.core.trace import Tracer
from migpool.device import Device, Side
from migpool.errors import Cancelled, DeviceError, UsageError
from migpool.schedulers import Scheduler, Setup

LIMIT = 20.0

MODELS: dict[str, type[Scheduler]] = {point.name: point.load() for point in entry_points(group="migpool.schedulers")}
NAMES = [
    name + word
    for name, model in sorted(MODELS.items())
    for word in ("", *(f":{word}" for group in model.choices for word in group))
]
CASES = [(name, side) for name in NAMES for side in sorted(MODELS[name.partition(":")[0]].sides)]


class Nothing(Device):
    iterable = True

    def __init__(self, number: int) -> None:
        self.idstr = f"device-{number}"

    def save_config(self) -> bytes:
        return b""

    def load_config(self, data: bytes) -> None:
        del data


class Mailboxes:
    """Answers ``NextChunk``: a queue a device, with the same hand-over as the destination's windows."""

    def __init__(self, switch: CancelSwitch) -> None:
        self._switch = switch
        self._news = threading.Condition(threading.RLock())
        self._boxes: dict[int, deque[object]] = defaultdict(deque)
        self._ready: dict[int, Callable[[], None]] = {}
        self.waits = 0
        switch.on_cancel(self._wake)

    def put(self, slot: Slot, chunk: object) -> None:
        with self._news:
            self._boxes[slot.number].append(chunk)
            ready = self._ready.pop(slot.number, None)
            self._news.notify_all()
        if ready is not None:
            ready()

    def take(self, effect: NextChunk) -> object:
        with self._news:
            self._waiting()
            while not self._boxes[effect.slot.number]:
                self._switch.check()
                self._news.wait(LIMIT)
            return self._boxes[effect.slot.number].popleft()

    def take_or_call(self, effect: NextChunk, ready: Callable[[], None], *, leave: bool) -> object | None:
        del leave  # nobody is sure to bring another chunk here
        with self._news:
            self._switch.check()
            self._waiting()
            if self._boxes[effect.slot.number]:
                return self._boxes[effect.slot.number].popleft()
            self._ready[effect.slot.number] = ready
            return None

    def until_waits(self, count: int) -> None:
        """Return once ``count`` chunks have been asked for."""
        with self._news:
            assert self._news.wait_for(lambda: self.waits >= count, LIMIT), f"only {self.waits} waits"

    def _waiting(self) -> None:
        self.waits += 1
        self._news.notify_all()

    def _wake(self) -> None:
        with self._news:
            ready, self._ready = list(self._ready.values()), {}
            self._news.notify_all()
        for call in ready:
            call()


@dataclass
class Bench:
    """A model, set up."""

    scheduler: Scheduler
    machine: Machine
    boxes: Mailboxes
    switch: CancelSwitch
    threads: ThreadGroup
    tracer: Tracer
    feeders: list[threading.Thread] = field(default_factory=list)

    def feed(self, chunks: int, devices: list[Slot] | None = None) -> None:
        """Bring every device's chunks, one device after the other for each index, from a thread."""

        def bring() -> None:
            for index in range(chunks):
                for slot in devices or self.machine.iterable:
                    self.boxes.put(slot, index)

        feeder = threading.Thread(target=bring, name="feeder")
        self.feeders.append(feeder)
        feeder.start()

    def submit_from_a_thread(self, jobs: list[Job]) -> threading.Thread:
        """Submit from another thread: a model may make the submitter wait."""

        def submit() -> None:
            for job in jobs:
                self.scheduler.submit(job)

        submitter = threading.Thread(target=submit, name="submitter")
        self.feeders.append(submitter)
        submitter.start()
        return submitter


def make_bench(name: str, side: Side, devices: int = 4, channels: int = 2, workers: int | None = None) -> Bench:
    switch, tracer, threads = CancelSwitch(), Tracer(), ThreadGroup(LIMIT)
    machine = Machine("bench", [Nothing(number) for number in range(devices)])
    boxes = Mailboxes(switch)
    interpreter = Interpreter(Handlers(), threading.Lock(), tracer, switch, boxes)
    name, _, word = name.partition(":")
    scheduler = MODELS[name]()
    scheduler.chosen = frozenset({word}) if word else frozenset()
    scheduler.setup(
        Setup(
            side=side,
            devices=machine.iterable,
            channels=channels,
            interpreter=interpreter,
            threads=threads,
            switch=switch,
            workers=workers if scheduler.takes_workers else None,
        )
    )
    return Bench(scheduler, machine, boxes, switch, threads, tracer)


@pytest.fixture(params=CASES, ids=[f"{name}-{side}" for name, side in CASES])
def case(request: pytest.FixtureRequest) -> tuple[str, Side]:
    found: tuple[str, Side] = request.param
    return found


@pytest.fixture
def made() -> Iterator[Callable[..., Bench]]:
    benches: list[Bench] = []

    def make(case: tuple[str, Side], devices: int = 4, channels: int = 2, workers: int | None = None) -> Bench:
        bench = make_bench(*case, devices, channels, workers)
        benches.append(bench)
        return bench

    yield make
    for bench in benches:
        bench.switch.cancel()
        for feeder in bench.feeders:
            feeder.join(LIMIT)
            assert not feeder.is_alive()
        bench.scheduler.close()
        bench.threads.close()


def collect(slot: Slot, chunks: int, into: list[object]) -> Steps:
    for index in range(chunks):
        chunk = yield NextChunk(slot, index)
        into.append(chunk)


def test_chunks_of_one_device_are_loaded_in_order_and_never_two_at_once(
    case: tuple[str, Side], made: Callable[..., Bench]
) -> None:
    bench = made(case, devices=6)
    seen: dict[int, list[object]] = {slot.number: [] for slot in bench.machine}
    busy: set[int] = set()
    clashes: list[str] = []

    def steps(slot: Slot) -> Steps:
        for index in range(40):
            chunk = yield NextChunk(slot, index)
            if slot.number in busy:
                clashes.append(slot.name)
            busy.add(slot.number)
            seen[slot.number].append(chunk)
            busy.discard(slot.number)

    bench.feed(40)
    for slot in bench.machine.iterable:
        bench.scheduler.submit(Job("load", steps(slot), slot))
    bench.scheduler.drain()
    assert seen == {slot.number: list(range(40)) for slot in bench.machine}
    assert not clashes


def test_all_of_200_devices_get_through(case: tuple[str, Side], made: Callable[..., Bench]) -> None:
    bench = made(case, devices=200)
    seen: list[object] = []
    bench.feed(3)
    for slot in bench.machine.iterable:
        bench.scheduler.submit(Job("load", collect(slot, 3, seen), slot))
    bench.scheduler.drain()
    assert len(seen) == 600


def test_one_worker_is_enough_for_all_devices(case: tuple[str, Side], made: Callable[..., Bench]) -> None:
    bench = made(case, devices=5, channels=1, workers=1)
    seen: list[object] = []
    bench.feed(4)
    for slot in bench.machine.iterable:
        bench.scheduler.submit(Job("load", collect(slot, 4, seen), slot))
    bench.scheduler.drain()
    assert len(seen) == 20


def test_drain_waits_for_the_last_job(case: tuple[str, Side], made: Callable[..., Bench]) -> None:
    bench = made(case)
    seen: list[object] = []
    submitter = bench.submit_from_a_thread(
        [Job("load", collect(slot, 2, seen), slot) for slot in bench.machine.iterable]
    )
    bench.feed(2)
    submitter.join(LIMIT)
    bench.scheduler.drain()
    assert len(seen) == 8


def test_drain_with_nothing_to_do_returns_also_twice(case: tuple[str, Side], made: Callable[..., Bench]) -> None:
    bench = made(case)
    bench.scheduler.drain()
    bench.scheduler.drain()


def test_the_first_error_reaches_the_caller_and_ends_the_other_jobs(
    case: tuple[str, Side], made: Callable[..., Bench]
) -> None:
    bench = made(case)
    ended: list[str] = []

    def fails(slot: Slot) -> Steps:
        yield NextChunk(slot, 0)
        raise DeviceError("it is broken")

    def waits(slot: Slot) -> Steps:
        try:
            while True:
                yield NextChunk(slot, 0)
        finally:
            ended.append(slot.name)

    first, *others = bench.machine.iterable
    jobs = [Job("load", fails(first), first), *(Job("load", waits(slot), slot) for slot in others)]
    submitter = bench.submit_from_a_thread(jobs)
    bench.boxes.put(first, 0)
    submitter.join(LIMIT)
    with pytest.raises(DeviceError, match=r"device-0.*: it is broken"):
        bench.scheduler.drain()
    assert bench.switch.thrown
    begun = {span.slot for span in bench.tracer.spans() if span.wait is Wait.STARVED}
    assert len(ended) == len(begun - {first.number}), "each job that had begun ran its finally block"


def test_an_unexpected_exception_becomes_one_line_that_names_the_device(
    case: tuple[str, Side], made: Callable[..., Bench]
) -> None:
    bench = made(case)
    slot = bench.machine.iterable[2]

    def fails() -> Steps:
        yield NextChunk(slot, 7)
        raise ZeroDivisionError("by zero")

    bench.feed(1)
    bench.scheduler.submit(Job("load", fails(), slot))
    with pytest.raises(DeviceError, match=r"device-2, chunk 7: ZeroDivisionError in its .*: by zero") as error:
        bench.scheduler.drain()
    assert isinstance(error.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize("wait", range(4))
def test_cancel_ends_a_job_at_each_of_its_waits(case: tuple[str, Side], made: Callable[..., Bench], wait: int) -> None:
    bench = made(case)
    slot = bench.machine.iterable[0]
    seen: list[object] = []
    submitter = bench.submit_from_a_thread([Job("load", collect(slot, 5, seen), slot)])
    for index in range(wait):
        bench.boxes.put(slot, index)
    bench.boxes.until_waits(wait + 1)
    bench.scheduler.cancel()
    submitter.join(LIMIT)
    with pytest.raises(Cancelled):
        bench.scheduler.drain()
    assert seen == list(range(wait))


def test_after_cancel_a_job_does_not_run(case: tuple[str, Side], made: Callable[..., Bench]) -> None:
    bench = made(case)
    seen: list[object] = []
    bench.feed(1)
    bench.scheduler.cancel()
    slot = bench.machine.iterable[0]
    bench.scheduler.submit(Job("load", collect(slot, 1, seen), slot))
    with pytest.raises(Cancelled):
        bench.scheduler.drain()
    assert seen == []


def test_after_close_submit_is_refused(case: tuple[str, Side], made: Callable[..., Bench]) -> None:
    bench = made(case)
    bench.scheduler.close()
    slot = bench.machine.iterable[0]
    with pytest.raises(UsageError, match="closed"):
        bench.scheduler.submit(Job("load", collect(slot, 1, []), slot))


def test_after_close_no_thread_of_the_model_is_left(case: tuple[str, Side], made: Callable[..., Bench]) -> None:
    before = set(threading.enumerate())
    bench = made(case, devices=8)
    seen: list[object] = []
    bench.feed(2)
    for slot in bench.machine.iterable:
        bench.scheduler.submit(Job("load", collect(slot, 2, seen), slot))
    bench.scheduler.drain()
    bench.scheduler.close()
    left = set(threading.enumerate()) - before - set(bench.feeders)
    assert not left
    assert bench.threads.peak <= 9


@pytest.mark.parametrize("workers", [1, 2])
def test_a_job_may_submit_a_job_and_that_another(
    case: tuple[str, Side], made: Callable[..., Bench], workers: int
) -> None:
    bench = made(case, workers=workers)
    order: list[int] = []

    def steps(depth: int) -> Steps:
        slot = bench.machine.iterable[depth]
        yield NextChunk(slot, 0)
        order.append(depth)
        if depth < 3:
            bench.scheduler.submit(Job("load", steps(depth + 1), bench.machine.iterable[depth + 1]))

    bench.feed(1)
    bench.scheduler.submit(Job("load", steps(0), bench.machine.iterable[0]))
    bench.scheduler.drain()
    assert order == [0, 1, 2, 3]


def test_every_wait_leaves_a_span_with_device_index_and_thread(
    case: tuple[str, Side], made: Callable[..., Bench]
) -> None:
    bench = made(case, devices=3)
    bench.feed(5)
    for slot in bench.machine.iterable:
        bench.scheduler.submit(Job("load", collect(slot, 5, []), slot))
    bench.scheduler.drain()
    spans = [span for span in bench.tracer.spans() if span.wait is Wait.STARVED]
    assert sorted((span.slot, span.index) for span in spans) == [(d, i) for d in range(3) for i in range(5)]
    assert all(span.begin <= span.end and span.thread for span in spans)
    assert len([span for span in bench.tracer.spans() if span.wait is Wait.QUEUED]) == 3
