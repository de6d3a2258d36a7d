"""The interpreter: a job at a time, an effect at a time, and what each wait leaves behind."""

from __future__ import annotations

import contextlib
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from migpool.core.buffers import Conduit
from migpool.core.cancel import CancelSwitch
from migpool.core.effects import Brought, Credit, Effect, Locked, ReadState, SaveConfig, SendConfig, Steps, Wait
from migpool.core.handlers import Handlers, Ready
from migpool.core.interpreter import Interpreter, Job
from migpool.core.machine import Machine, Slot
from migpool.core.trace import Tracer
from migpool.errors import Cancelled, DeviceError
from tests.support.rig import Scripted


class Bench:
    """An interpreter of which every effect is told, and credit is what the test says."""

    def __init__(self) -> None:
        self.machine = Machine("m", [Scripted(0)])
        (self.slot,) = self.machine
        self.told: list[str] = []
        self.lock = threading.Lock()
        self.switch, self.tracer = CancelSwitch(), Tracer()
        self.granted = 0
        self.ready: list[Ready] = []
        self.left: list[bool] = []
        handlers = Handlers()
        handlers.on(ReadState, self._read)
        handlers.on(Credit, self._credit)
        handlers.on_call(Credit, self._credit_or_call)
        handlers.on(SendConfig, self._send)
        handlers.on(SaveConfig, self._save_config)
        self.interpreter = Interpreter(handlers, self.lock, self.tracer, self.switch)

    def _read(self, effect: ReadState) -> int:
        self.told.append(f"read {effect.index}")
        return 7

    def _credit(self, effect: Credit) -> int:
        self.told.append(f"credit {effect.index}")
        return self.granted

    def _credit_or_call(self, effect: Credit, ready: Ready, *, leave: bool) -> int | None:
        self.left.append(leave)
        if effect.index < self.granted:
            return self.granted
        self.ready.append(ready)
        return None

    def _send(self, effect: SendConfig) -> None:
        self.told.append(f"send {effect.index}")

    def _save_config(self, effect: SaveConfig) -> bytes:
        del effect
        self.told.append("config, locked" if self.lock.locked() else "config")
        return b"config"

    def job(self, answers: list[object] | None = None) -> Job:
        """One that reads, asks for credit, sends, and saves its config."""

        def steps() -> Steps:
            into = [] if answers is None else answers
            into.append((yield ReadState(self.slot, 0, Conduit.__new__(Conduit))))
            into.append((yield Credit(self.slot, 0)))
            into.append((yield SendConfig(self.slot, 0, b"")))
            into.append((yield SaveConfig(self.slot)))

        return Job("save", steps(), self.slot)

    @property
    def waits(self) -> list[Wait]:
        """Of the spans, in the order in which they were left."""
        return [span.wait for span in self.tracer.spans()]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_whole_job_is_performed_and_answered_and_each_wait_leaves_a_span(bench: Bench) -> None:
    answers: list[object] = []
    bench.granted = 3
    job = bench.job(answers)
    assert bench.interpreter.run(job) is None
    assert job.effect is None
    assert answers == [7, 3, None, b"config"]
    assert bench.told == ["read 0", "credit 0", "send 0", "config, locked"]
    assert bench.waits == [Wait.QUEUED, Wait.READ, Wait.CREDIT, Wait.SEND, Wait.LOCK, Wait.SAVE_CONFIG]
    spans = bench.tracer.spans()
    assert [one.end for one in spans[1:4]] == [two.begin for two in spans[2:5]], (
        "a wait begins where the last one ended"
    )


def test_run_stops_before_what_others_are_to_perform_and_goes_on_from_there(bench: Bench) -> None:
    job = bench.job()
    effect = bench.interpreter.run(job, (Brought, Locked))
    assert isinstance(effect, Credit)
    assert effect is job.effect
    assert bench.interpreter.run(job, (Brought, Locked)) is effect, "nothing is performed twice"
    assert isinstance(bench.interpreter.perform(job, effect), SendConfig)
    effect = bench.interpreter.run(job, (Brought, Locked))
    assert isinstance(effect, SaveConfig)
    assert bench.interpreter.perform(job, effect) is None
    assert bench.told == ["read 0", "credit 0", "send 0", "config, locked"]
    assert bench.waits == [Wait.QUEUED, Wait.READ, Wait.CREDIT, Wait.SEND, Wait.LOCK, Wait.SAVE_CONFIG]
    assert bench.interpreter.run(job) is None, "it has ended, and is not begun again"
    assert bench.waits[-1] is Wait.SAVE_CONFIG


def test_what_must_be_waited_for_leaves_the_job_until_it_is_brought(bench: Bench) -> None:
    job = bench.job()
    effect = bench.interpreter.run(job, (Brought,))
    assert effect is not None
    since = job.since
    called: list[object] = []

    def ready(brought: object = None, /) -> None:
        called.append(brought)

    assert not bench.interpreter.try_perform(job, effect, ready, leave=True)
    assert (job.effect, job.since) == (effect, since)
    assert Wait.CREDIT not in bench.waits
    bench.granted = 1
    bench.ready.pop()()
    assert called == [None]
    assert bench.interpreter.try_perform(job, effect, ready)
    assert called == [None]
    assert isinstance(job.effect, SendConfig)
    assert bench.left == [True, False]
    credit = bench.tracer.spans()[-1]
    assert (credit.wait, credit.begin) == (Wait.CREDIT, since), "all of the wait is one span"


def test_an_effect_of_no_job_leaves_the_same_span_and_the_same_error(bench: Bench) -> None:
    bench.granted = 5
    assert bench.interpreter.once(Credit(bench.slot, 4)) == 5
    assert bench.interpreter.once(SaveConfig(bench.slot)) == b"config"
    assert bench.told == ["credit 4", "config, locked"]
    assert bench.waits == [Wait.CREDIT, Wait.LOCK, Wait.SAVE_CONFIG]
    bench.switch.cancel()
    with pytest.raises(Cancelled):
        bench.interpreter.once(SaveConfig(bench.slot))
    assert bench.told == ["credit 4", "config, locked"]


class Held(Conduit):
    """A buffer of which it can be seen whether anything holds it."""

    __slots__ = ("__weakref__",)

    def __init__(self) -> None:
        self.length = 0


def refuse(effect: ReadState) -> int:
    raise DeviceError(f"no chunk {effect.index}")


def iter_once(effect: Effect[object]) -> Steps:
    yield effect


Way = Callable[[Interpreter, Job], None]


def _run(interpreter: Interpreter, job: Job) -> None:
    interpreter.run(job)


def _perform(interpreter: Interpreter, job: Job) -> None:
    effect = interpreter.begin(job)
    while effect is not None:
        effect = interpreter.perform(job, effect)


@pytest.fixture(params=[_run, _perform], ids=["run", "perform"])
def way(request: pytest.FixtureRequest) -> Way:
    found: Way = request.param
    return found


def failing(error: Exception) -> tuple[Interpreter, Tracer, Slot]:
    """An interpreter whose reads fail."""
    machine = Machine("m", [Scripted(0)])

    def read(effect: ReadState) -> int:
        del effect
        raise error

    handlers = Handlers()
    handlers.on(ReadState, read)
    handlers.on(Credit, lambda effect: effect.index + 1)
    tracer = Tracer()
    return Interpreter(handlers, threading.Lock(), tracer, CancelSwitch()), tracer, machine.slots[0]


@pytest.mark.parametrize("error", [StopIteration("no more"), ZeroDivisionError("by zero")])
def test_an_error_in_an_effect_ends_the_job_and_names_the_chunk(way: Way, error: Exception) -> None:
    interpreter, tracer, slot = failing(error)
    ended: list[str] = []

    def steps() -> Steps:
        try:
            yield ReadState(slot, 3, Conduit.__new__(Conduit))
        finally:
            ended.append("ended")

    job = Job("save", steps(), slot)
    with pytest.raises(DeviceError, match=rf"device-0, chunk 3: {type(error).__name__} in its save_state: {error}"):
        way(interpreter, job)
    assert ended == ["ended"]
    assert job.effect is None
    assert [span.wait for span in tracer.spans()] == [Wait.QUEUED, Wait.READ]


def test_an_error_holds_nothing_of_its_job_once_it_is_gone(way: Way) -> None:
    _, tracer, slot = failing(ZeroDivisionError())
    handlers = Handlers()
    handlers.on(ReadState, refuse)
    interpreter = Interpreter(handlers, threading.Lock(), tracer, CancelSwitch())
    held = weakref.ref(conduit := Held())
    job = Job("save", iter_once(ReadState(slot, 0, conduit)), slot)
    gc.disable()  # a cycle would hold it until the collector runs
    try:
        with contextlib.suppress(DeviceError):
            way(interpreter, job)
        del job, conduit
        assert held() is None
    finally:
        gc.enable()


def test_an_error_of_the_job_itself_leaves_no_second_span(way: Way) -> None:
    interpreter, tracer, slot = failing(ZeroDivisionError())

    def steps() -> Steps:
        yield Credit(slot, 2)
        raise ValueError("of its own")

    with pytest.raises(DeviceError, match="chunk 2: ValueError in its credit: of its own"):
        way(interpreter, Job("save", steps(), slot))
    assert [span.wait for span in tracer.spans()] == [Wait.QUEUED, Wait.CREDIT]


def test_nothing_begins_once_the_switch_is_thrown(way: Way, bench: Bench) -> None:
    def steps() -> Steps:
        yield ReadState(bench.slot, 0, Conduit.__new__(Conduit))
        bench.switch.cancel()
        yield SendConfig(bench.slot, 0, b"")

    with pytest.raises(Cancelled):
        way(bench.interpreter, Job("save", steps(), bench.slot))
    assert bench.told == ["read 0"]


if TYPE_CHECKING:
    # What `make lint` has to find: a handler that does not fit is an error, and so is a comment where one does.
    def read(effect: ReadState) -> int:
        return effect.chunk.length

    handlers = Handlers()
    handlers.on(ReadState, read)
    handlers.on(SaveConfig, lambda effect: effect.slot.device.save_config())
    handlers.on(Credit, lambda effect: effect.index)
    handlers.on(Credit, lambda effect: bytes(effect.index))  # type: ignore[arg-type, return-value]  # another answer
    handlers.on(ReadState, lambda effect: effect.config)  # type: ignore[attr-defined]  # it has no config
    handlers.on(Credit, read)  # type: ignore[arg-type]  # another effect
    handlers.on(SaveConfig, read)  # type: ignore[arg-type]  # both


def test_effects_say_what_they_are_answered_with() -> None:
    """Those that jobs use; a handler of an effect that does not say is not checked."""
    kinds = [
        kind for kind in _below(Effect) if kind.__module__ == "migpool.core.effects" and kind not in (Brought, Locked)
    ]
    assert len(kinds) > 10
    for kind in kinds:
        (base,) = kind.__orig_bases__  # type: ignore[attr-defined]
        assert base.__args__, kind


def _below(kind: type[object]) -> Iterator[type[object]]:
    one: type[object]
    for one in kind.__subclasses__():
        yield one
        yield from _below(one)
