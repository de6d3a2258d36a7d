"""The threading model that is looked at, set up with made devices; a check gives it jobs and brings their chunks."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from migpool.conformance.check import Checked, Failure, check_name
from migpool.core.buffers import Chunk
from migpool.core.cancel import CancelSwitch
from migpool.core.effects import NextChunk, Steps, WriteState
from migpool.core.handlers import Handlers, Ready
from migpool.core.interpreter import Interpreter, Job
from migpool.core.machine import Machine, NamedDevice, Slot
from migpool.core.threads import ThreadGroup
from migpool.core.trace import Tracer
from migpool.device import Side
from migpool.errors import DeviceError, UsageError
from migpool.migration.chunk_queue import ChunkQueues
from migpool.scenario.model_syntax import SideModel, parse_part
from migpool.scenario.plugins import load_scheduler
from migpool.schedulers.base import Scheduler, Setup

A_MOMENT = 0.005
SIZE = 4096


PATIENCE: Final = 0.1
"""The part of a check's limit that one call of the model may take."""


@dataclass(frozen=True, slots=True)
class Subject(Checked):
    """A threading model at one end.

    Arguments:
        name: as on the command line: ``pool``, ``pool:2:queue``.
        patience: seconds that a call of it may take, and that its jobs may make no headway.
    """

    name: str
    side: Side
    part: SideModel
    patience: float

    def __str__(self) -> str:
        return f"{self.name} {self.side}"


def subjects(name: str, limit: float) -> list[Subject]:
    """A model at each end that it is for; with a plain name, also each of its variants.

    Arguments:
        name: as on the command line, for one end.
        limit: seconds that one check may take.

    Raises:
        UsageError: there is no such model, or what follows its name means nothing to it.
        PluginError: it cannot be imported, or is no threading model.
    """
    if "+" in name:
        raise UsageError(f"{name!r} names two models: check one at a time, each is checked at either end")
    check_name("scheduler", name)
    load_scheduler(name.partition(":")[0])  # for its own words, if it is broken
    part, patience = parse_part(name), limit * PATIENCE
    words = [] if ":" in name else [word for group in part.scheduler.choices for word in group]
    names = [name, *(f"{name}:{word}" for word in words)]
    return [Subject(each, side, parse_part(each), patience) for each in names for side in sorted(part.scheduler.sides)]


class _Queues(ChunkQueues):
    """The destination's own, which also say how many chunks were asked for."""

    def __init__(self, machine: Machine, switch: CancelSwitch) -> None:
        self._news = threading.Condition()
        self._asked = 0
        self._brought: defaultdict[int, Iterator[int]] = defaultdict(itertools.count)
        super().__init__(machine.iterable, lambda _: None, switch, lambda _: None)

    def put(self, slot: Slot) -> None:
        """Bring the device's next chunk."""
        chunk = Chunk(SIZE)
        chunk.index = next(self._brought[slot.number])
        self.deliver(self.by_slot[slot.number], chunk)

    def take(self, effect: NextChunk) -> Chunk:
        self._note()
        return super().take(effect)

    def take_or_call(self, effect: NextChunk, ready: Ready, *, leave: bool) -> Chunk | None:
        self._note()
        return super().take_or_call(effect, ready, leave=leave)

    def asked(self, count: int, patience: float) -> bool:
        """Whether ``count`` chunks are asked for within ``patience`` seconds."""
        with self._news:
            return self._news.wait_for(lambda: self._asked >= count or self._switch.thrown, patience)

    def _note(self) -> None:
        with self._news:
            self._asked += 1
            self._news.notify_all()

    def _wake(self) -> None:
        super()._wake()
        with self._news:
            self._news.notify_all()


class Call:
    """A call of the model on a thread of its own, since it may not return. ``what``: names it in an error."""

    def __init__(self, bench: Bench, what: str, do: Callable[[], object]) -> None:
        self._bench = bench
        self._what = what
        self._do = do
        self._error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, name=what, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self._do()
        except BaseException as error:  # noqa: BLE001 -- raised where the end is waited for
            self._error = error

    def end(self) -> None:
        """Wait for it to return, and raise what it raised.

        Raises:
            Failure: it has not returned.
        """
        patience = self._bench.patience
        self.thread.join(patience)
        if self.thread.is_alive():
            standing = self._bench.scheduler.standing()
            raise Failure(f"{self._what} has not returned after {patience:g} s{standing and f': {standing}'}")
        if self._error is not None:
            raise self._error


class Bench:
    """A model, set up.

    Arguments:
        workers: as many, if the model takes a number and none is in its name.
        limit: seconds that the model's threads have to end, and jobs to make headway; 0 for the subject's patience.

    Attributes:
        written: the chunks that each device's job has written, by slot.
        holds: called in a job's write with its device; may block.
    """

    def __init__(self, subject: Subject, devices: int, workers: int | None, limit: float) -> None:
        self.patience = subject.patience
        self.before = set(threading.enumerate())
        self.switch, self.tracer = CancelSwitch(), Tracer()
        self.threads = ThreadGroup(limit or subject.patience / 2)
        self.machine = Machine("bench", [NamedDevice(number) for number in range(devices)])
        self.slots: Sequence[Slot] = self.machine.iterable
        self.boxes = _Queues(self.machine, self.switch)
        self.written: dict[int, list[int]] = {slot.number: [] for slot in self.slots}
        self.holds: Callable[[Slot], None] = lambda _: None
        self.scheduler: Scheduler = subject.part.make()
        self._writing: set[int] = set()
        self._overlaps: list[str] = []
        self._calls: list[Call] = []
        handlers = Handlers()
        handlers.on(WriteState, self._write)
        interpreter = Interpreter(handlers, threading.Lock(), self.tracer, self.switch, self.boxes)
        subject.living.append(self.switch.cancel)
        self.setup = Setup(
            side=subject.side,
            devices=self.slots,
            channels=2,
            interpreter=interpreter,
            threads=self.threads,
            switch=self.switch,
            workers=subject.part.workers or (workers if subject.part.scheduler.takes_workers else None),
            limit=limit or subject.patience,
        )

    # ------------------------------------------------------------------ jobs

    def _write(self, effect: WriteState) -> None:
        number = effect.slot.number
        if number in self._writing:
            self._overlaps.append(effect.slot.name)
        self._writing.add(number)
        self.holds(effect.slot)
        self.written[number].append(effect.index)
        self._writing.discard(number)

    def load(self, slot: Slot, chunks: int, then: Callable[[], object] | None = None) -> Job:
        """A job that writes so many chunks as they come. ``then``: called once it has."""

        def steps() -> Steps:
            for index in range(chunks):
                chunk: Chunk = yield NextChunk(slot, index)
                yield WriteState(slot, index, chunk)
            if then is not None:
                then()

        return Job("load", steps(), slot)

    def verify(self, chunks: int) -> None:
        """Every device's chunks must have been written, once, in order, and one at a time."""
        if self._overlaps:
            raise Failure(
                f"two writes of {self._overlaps[0]} at once: each effect of a job ends before the next begins"
            )
        for slot in self.slots:
            if self.written[slot.number] != list(range(chunks)):
                raise Failure(
                    f"{slot.name}: chunks {self.written[slot.number]} were written instead of 0 to {chunks - 1}"
                )

    # ------------------------------------------------------------------ what is done with the model

    def calling(self, what: str, do: Callable[[], object]) -> Call:
        """Begin a call of the model on a thread of its own."""
        self._calls.append(Call(self, what, do))
        return self._calls[-1]

    def call(self, what: str, do: Callable[[], object]) -> None:
        """Call the model, and wait for the end."""
        self.calling(what, do).end()

    def submitting(self, *jobs: Job) -> Call:
        """Submit from another thread: a model may make the submitter wait."""

        def submit() -> None:
            for job in jobs:
                self.scheduler.take(job)

        return self.calling("submit", submit)

    def put(self, slot: Slot, count: int = 1) -> None:
        """Bring a device's next chunks, on the calling thread."""
        for _ in range(count):
            self.boxes.put(slot)

    def feeding(self, chunks: int) -> Call:
        """Bring every device's chunks, one device after the other for each index, from a thread."""

        def bring() -> None:
            for _ in range(chunks):
                for slot in self.slots:
                    self.put(slot)

        return self.calling("a chunk's arrival", bring)

    def drain(self) -> None:
        self.call("drain", self.scheduler.drain)

    def run_all(self, chunks: int) -> None:
        """Have every device's job run to its end."""
        feeding = self.feeding(chunks)
        self.submitting(*(self.load(slot, chunks) for slot in self.slots)).end()
        self.drain()
        feeding.end()
        self.verify(chunks)

    def until_asked(self, count: int) -> None:
        """Wait until jobs have asked for so many chunks."""
        if not self.boxes.asked(count, self.patience):
            raise Failure(f"jobs wait for a thread: {self.scheduler.standing()}")

    def model_threads(self) -> set[threading.Thread]:
        """The threads that were not there before, but those of the bench."""
        return set(threading.enumerate()) - self.before - {call.thread for call in self._calls}

    def begin(self) -> None:
        self.call("setup", lambda: self.scheduler.begin(self.setup))

    def close(self) -> None:
        """Close the model, which may have been closed before."""
        self.switch.cancel(DeviceError("the check is over"))
        for call in self._calls:
            call.thread.join(self.patience)
        self.call("close", self.scheduler.close)
        self.threads.close()


@contextlib.contextmanager
def benched(subject: Subject, *, devices: int = 4, workers: int | None = None, limit: float = 0) -> Iterator[Bench]:
    """A bench with the model set up, and closed at the end."""
    bench = Bench(subject, devices, workers, limit)
    try:
        bench.begin()
        yield bench
    except BaseException:
        # What went wrong is known; a model that is broken is not waited for.
        bench.switch.cancel()
        with contextlib.suppress(Exception):
            threading.Thread(target=bench.close, name="close", daemon=True).start()
        raise
    bench.close()


def eventually(holds: Callable[[], bool], patience: float) -> bool:
    """Whether ``holds`` becomes true within ``patience`` seconds."""
    deadline = time.monotonic() + patience
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(A_MOMENT)
    return True
