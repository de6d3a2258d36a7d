"""Checks of a model's work: each job runs once, its effects one after the other, and all jobs get through.

The last ones migrate made devices, the model at one end and a pool of one worker at the other.
"""

from __future__ import annotations

import hashlib
import random
import threading
from functools import partial

from migpool.conformance.check import Failure
from migpool.conformance.devices import Subject as Devices
from migpool.conformance.devices import migrating
from migpool.conformance.models.bench import Bench, Subject, benched
from migpool.core.effects import Wait
from migpool.device import Device, DeviceContext, DeviceError, Pending
from migpool.scenario.model_syntax import Model, parse_part

DEPTH = 3


def runs(subject: Subject) -> str:
    """Every job that is submitted runs, once, from its first effect to its last."""
    with benched(subject) as bench:
        bench.run_all(3)
    return "4 jobs"


def one_at_a_time(subject: Subject) -> str:
    """Effects of one job never run at once, and come in order, whoever carries the job on."""
    with benched(subject, devices=6) as bench:
        bench.run_all(40)
    return "6 devices, 40 chunks each"


def begins_in_order(subject: Subject) -> str:
    """The peer serves one device after the other, in the order of submit: that must not be waited for the wrong way."""
    for workers in (1, None):
        with benched(subject, devices=6, workers=workers) as bench:
            done = [threading.Event() for _ in bench.slots]

            def serve(bench: Bench = bench, done: list[threading.Event] = done) -> None:
                for slot, ended in zip(bench.slots, done, strict=True):
                    bench.put(slot, 2)
                    while not ended.wait(0.05) and not bench.switch.thrown:
                        pass

            serving = bench.calling("a chunk's arrival", serve)
            submitting = bench.submitting(
                *(bench.load(slot, 2, ended.set) for slot, ended in zip(bench.slots, done, strict=True))
            )
            submitting.end()
            bench.drain()
            serving.end()
            bench.verify(2)
    return "with one worker and with as many as it likes"


def many_devices(subject: Subject) -> str:
    """200 devices get through, whose chunks come by turns."""
    with benched(subject, devices=200) as bench:
        bench.run_all(3)
    return "200 devices"


def jobs_of_jobs(subject: Subject) -> str:
    """A job submits a job, and that another: nobody waits for himself, and drain waits for the last."""
    for workers in (1, 2):
        with benched(subject, workers=workers) as bench:
            order: list[int] = []

            def submit(depth: int, bench: Bench = bench, order: list[int] = order) -> None:
                def then() -> None:
                    order.append(depth)
                    if depth < DEPTH:
                        submit(depth + 1)

                bench.scheduler.take(bench.load(bench.slots[depth], 1, then))

            feeding = bench.feeding(1)
            bench.calling("submit", lambda: submit(0)).end()
            bench.drain()
            feeding.end()
            if order != list(range(DEPTH + 1)):
                raise Failure(f"jobs {order} of 0 to {DEPTH} had run when drain returned; each submits the next")
    return f"{DEPTH} deep"


def drain_waits(subject: Subject) -> str:
    """Drain returns when the last job has ended, and not before."""
    with benched(subject) as bench:
        first, *others = bench.slots
        ended: list[str] = []
        seen: list[int] = []

        def drain() -> None:
            bench.scheduler.drain()
            seen.append(len(ended))

        jobs = [bench.load(slot, 1, lambda: ended.append("")) for slot in bench.slots]
        submitting = bench.submitting(*jobs)
        for slot in others:
            bench.put(slot)
        bench.until_asked(1)
        draining = bench.calling("drain", drain)
        # A drain that does not wait has all the time of a switch of threads to return.
        draining.thread.join(0.02)
        bench.put(first)
        submitting.end()
        draining.end()
        if seen != [len(jobs)]:
            raise Failure(f"drain returned when {seen[0]} of {len(jobs)} jobs had ended: it must wait for all")
    return "it waits for the last"


def drain_with_nothing(subject: Subject) -> str:
    """Drain with nothing to do returns at once, also a second time."""
    with benched(subject) as bench:
        bench.drain()
        bench.drain()
    return "twice"


def traced(subject: Subject) -> str:
    """Every wait of a job leaves one span, with its device and chunk: jobs run by the interpreter that was given."""
    with benched(subject, devices=3) as bench:
        bench.run_all(5)
        for wait in (Wait.STARVED, Wait.WRITE):
            spans = sorted((span.slot, span.index) for span in bench.tracer.spans() if span.wait is wait)
            if spans != [(slot, index) for slot in range(3) for index in range(5)]:
                raise Failure(f"{len(spans)} spans of kind {wait.name.lower()} instead of 15: call self.run(job)")
        begun = sum(span.wait is Wait.QUEUED for span in bench.tracer.spans())
        if begun != 3:
            raise Failure(f"{begun} jobs were begun instead of 3: run each once")
    return "33 spans"


SIZE = 300_000
PARTNER = "pool:1"


class _Made(Device):
    idstr = "made"
    iterable = True

    def __init__(self, number: int, memory: bytearray) -> None:
        self.instance_id = number
        self._memory = memory
        self._at = 0

    def pending(self) -> Pending:
        return Pending(stopcopy=len(self._memory) - self._at)

    def save_state(self, buffer: memoryview) -> int:
        part = self._memory[self._at : self._at + len(buffer)]
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)

    def save_config(self) -> bytes:
        return b"config"

    def resume(self) -> None:
        self._at = 0

    def load_state(self, data: memoryview) -> None:
        self._memory[self._at : self._at + len(data)] = data
        self._at += len(data)

    def load_config(self, data: bytes) -> None:
        if data != b"config" or self._at != len(self._memory):
            raise DeviceError(f"{self._at} of {len(self._memory)} bytes have come, and the config {data!r}")

    def fingerprint(self) -> bytes:
        return hashlib.sha256(self._memory).digest()


def _devices(context: DeviceContext) -> list[Device]:
    dice = random.Random(context.seed)
    return [
        _Made(number, bytearray(dice.randbytes(SIZE)) if context.side == "source" else bytearray(SIZE))
        for number in range(context.count)
    ]


MADE = partial(Devices, "made", _devices, {})


def migrates(subject: Subject) -> str:
    """Migrate five devices with room for two chunks each, a pool of one worker at the other end."""
    return migrating.tight_window(MADE(5), _model(subject))


def cancelled_migrations(subject: Subject) -> str:
    """Migrate, cancel at waits of the model's end, and migrate again after each."""
    return migrating.cancels(MADE(3), _model(subject), sides=(subject.side,))


def _model(subject: Subject) -> Model:
    partner = parse_part(PARTNER)
    ends = (subject.part, partner) if subject.side == "source" else (partner, subject.part)
    return Model(subject.name, *ends)
