"""What a cancel ends between two effects, and the gate that a job without credit waits at."""

from __future__ import annotations

import threading

import pytest

from migpool.core.cancel import CancelSwitch
from migpool.core.effects import Credit, SaveConfig, Steps
from migpool.core.handlers import Handlers
from migpool.core.interpreter import Interpreter, Job
from migpool.core.machine import Machine
from migpool.core.trace import Tracer
from migpool.errors import Cancelled
from migpool.migration.save_handlers import Gate
from tests.support.rig import Scripted


def test_after_a_cancel_the_next_effect_is_not_performed_and_the_job_is_ended() -> None:
    switch, (slot,) = CancelSwitch(), Machine("m", [Scripted(0)]).slots
    performed: list[str] = []
    ended: list[str] = []

    def credit(effect: Credit) -> int:
        performed.append(f"credit {effect.index}")
        switch.cancel()
        return effect.index + 1

    def steps() -> Steps:
        try:
            yield Credit(slot, 0)
            yield Credit(slot, 1)
            yield SaveConfig(slot)
        finally:
            ended.append("ended")

    handlers = Handlers()
    handlers.on(Credit, credit)
    job = Job("save", steps(), slot)
    with pytest.raises(Cancelled):
        Interpreter(handlers, threading.Lock(), Tracer(), switch).run(job)
    assert performed == ["credit 0"]
    assert ended == ["ended"]


def test_an_effect_that_waited_for_the_big_lock_is_not_performed_after_a_cancel() -> None:
    switch, (slot,) = CancelSwitch(), Machine("m", [Scripted(0)]).slots
    lock = threading.Lock()
    performed: list[str] = []
    errors: list[BaseException] = []

    def steps() -> Steps:
        asks.set()
        yield SaveConfig(slot)

    def run() -> None:
        try:
            interpreter.run(Job("save", steps(), slot))
        except Cancelled as error:
            errors.append(error)

    def saved(effect: SaveConfig) -> bytes:
        performed.append(effect.slot.name)
        return b""

    asks = threading.Event()
    handlers = Handlers()
    handlers.on(SaveConfig, saved)
    interpreter = Interpreter(handlers, lock, Tracer(), switch)
    with lock:
        thread = threading.Thread(target=run)
        thread.start()
        assert asks.wait(20)
        switch.cancel()
    thread.join(20)
    assert (performed, len(errors)) == ([], 1)


def test_a_gate_only_opens_further() -> None:
    gate = Gate(CancelSwitch(), 0)
    gate.open(5)
    gate.open(3)
    assert gate.limit == 5
    gate.wait(4)


def test_who_waits_at_a_gate_is_called_once_and_only_when_it_is_open_for_it() -> None:
    gate, called = Gate(CancelSwitch(), 0), [0]

    def ready(brought: object = None, /) -> None:
        del brought
        called[0] += 1

    assert not gate.passed_or_call(7, ready)
    gate.open(7)
    assert called == [0]
    gate.open(8)
    gate.open(9)
    assert called == [1]
    assert gate.passed_or_call(8, ready)
