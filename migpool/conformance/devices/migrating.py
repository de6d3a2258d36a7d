"""Checks that migrate: a round trip, tight memory, cancels and errors wherever they can come."""

from __future__ import annotations

import gc
import threading
import time
import tracemalloc
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Final

from migpool.conformance.check import Failure, NotApplicable
from migpool.conformance.devices.subject import Subject
from migpool.conformance.pairing import (
    SIDES,
    Calls,
    Migrated,
    cancelled_at,
    counting_waits,
    failing,
    migrate,
    settings_with,
    spread,
)
from migpool.core.machine import Machine
from migpool.core.plugin_errors import place_of
from migpool.device import Side, TaggedDevice
from migpool.lab.run.side import Footprint, footprint
from migpool.migration.settings import Settings
from migpool.migration.states import State
from migpool.scenario.model_syntax import Model
from migpool.units import MIB, count_of

PAGE: Final = 4096
POSITIONS: Final = 6
"""How many waits of each side are cancelled at, evenly spread, unless all are asked for."""
FAILED: Final = (0, 1)
"""Which calls of a method fail, each in a migration of its own: the first and the second."""
REPEATS: Final = 20
WARM_UP: Final = 3
"""Migrations that may leave something: what is made once."""
KEPT: Final = MIB // 2
"""Bytes of Python's objects that may be more after all repeats."""
GROWTH: Final = 64 * MIB
"""The same of the process's resident memory, of which the C library may keep some."""
SETTLED: Final = 1.0
ROOMY: Final = settings_with(MIB, 16)
"""More than a device of a check takes at once; that the buffers have their pages costs more than all else here."""
SPLICING: Final = replace(settings_with(16 * PAGE, 64), splice=True)
TURNS: Final = 5

IN_FLIGHT: Final = replace(ROOMY, in_flight=2)
LIVE: Final = replace(ROOMY, live="multifd")

SAVING: Final = ("save_setup", "iterate", "quiesce", "stop", "save_state", "save_config")
LOADING: Final = ("load_state", "load_config", "wake", "start")
FAILING: Final[dict[Side, tuple[str, ...]]] = {
    "source": (*SAVING, "save_part"),
    "destination": ("load_setup", "load_part", *LOADING),
}


def round_trip(subject: Subject, model: Model) -> str:
    """Migrate, and compare the state at both ends; calls come one at a time, in the order that is promised."""
    return _verified(subject, model, ROOMY)


def short_buffers(subject: Subject, model: Model) -> str:
    """Migrate with buffers of a page, far shorter than the device may like."""
    return _verified(subject, model, settings_with(PAGE, 64))


def tight_window(subject: Subject, model: Model) -> str:
    """Migrate with room for two chunks a device and four channels: chunks arrive at the window's edge, out of order."""
    machine = subject.machine("source")
    machine.close()
    return _verified(subject, model, settings_with(16 * PAGE, 2 * max(1, len(machine.iterable)), channels=4))


def two_jobs(subject: Subject, model: Model) -> str:
    """Migrate with two save jobs for each device: its reads still come one at a time, in order, on changing threads."""
    with closing(subject.machine("source")) as machine:
        if all(isinstance(slot.device, TaggedDevice) for slot in machine.iterable):
            raise NotApplicable("no device is iterable without tags")
    return _verified(subject, model, IN_FLIGHT)


def live_jobs(subject: Subject, model: Model) -> str:
    """Migrate with what is saved before the stop going over the multifd channels, as jobs."""
    with closing(subject.machine("source")) as machine:
        for slot in machine:
            slot.device.save_setup()
        if not any(slot.device.pending().precopy for slot in machine.iterable):
            raise NotApplicable("no device has anything to save before the stop")
    return _verified(subject, model, LIVE)


def spliced(subject: Subject, model: Model) -> str:
    """Migrate with ``splice``: a device's descriptor and its calls take turns, and the state must be whole."""
    answers: list[int] = []
    proof = ""
    # When a chunk comes decides which way it goes: some migrations, so that some chunks go either way.
    for _ in range(TURNS):
        with subject.machines() as (source, destination):
            for slot in (*source, *destination):
                slot.device.splice_fd = partial(_noted, slot.device.splice_fd, answers)
            _must_complete(migrate(source, destination, model, SPLICING), "")
            proof = _proof(source)
        if not answers:
            raise NotApplicable("no device has a descriptor for splice(2)")
    return proof


def _noted(splice_fd: Callable[[], int | None], answers: list[int]) -> int | None:
    descriptor = splice_fd()
    if descriptor is not None:
        answers.append(descriptor)
    return descriptor


def cancels(subject: Subject, model: Model, *, every: bool = False, sides: Sequence[Side] = SIDES) -> str:
    """Cancel at one wait after the other, at either end; the source's devices must go on and migrate later."""
    with subject.machines() as (source, destination):
        migrated, waits = counting_waits(source, destination, model, ROOMY)
        _must_complete(migrated, "")
    done = 0
    for side in sides:
        count = waits[side]
        for position in range(count) if every else spread(count, POSITIONS):
            done += _cancel_at(subject, model, side, position)
    return f"{done} of {sum(waits[side] for side in sides)} waits cancelled, and migrated again after each"


def errors(subject: Subject, model: Model) -> str:
    """Fail one call after the other; the error must name the device, the source's devices must go on and migrate."""
    done = 0
    for side, methods in FAILING.items():
        for method in methods:
            for number in FAILED:
                done += _fail_in(subject, model, side, method, number)
    return f"{count_of(done, 'call')} failed, and migrated again after each"


def leaves_nothing(subject: Subject, model: Model) -> str:
    """Migrate again and again: no thread, descriptor or memory may be left."""
    for _ in range(WARM_UP):
        _verified(subject, model, ROOMY)
    before, held = _held()
    for _ in range(REPEATS):
        _verified(subject, model, ROOMY)
    after, holds = _held()
    tracemalloc.stop()
    with closing(subject.machine("source")) as machine:
        where = place_of(machine.slots[0].device, "close")
    if before is not None and after is not None:
        for what in ("threads", "descriptors"):
            if (more := getattr(after, what) - getattr(before, what)) > 0:
                raise Failure(f"{more} more {what} after {REPEATS} migrations: give them back in close(){where}")
        grown = after.resident_bytes - before.resident_bytes
        if grown > GROWTH:
            raise Failure(f"the process grew by {grown >> 20} MiB in {REPEATS} migrations: something keeps the state")
    if holds - held > KEPT:
        raise Failure(
            f"{(holds - held) // REPEATS >> 10} KiB more for each migration: close() does not give up everything{where}"
        )
    return f"{REPEATS} migrations, nothing left of them"


def _held() -> tuple[Footprint | None, int]:
    """What the process holds, and how many bytes Python's objects take, garbage collected."""
    tracemalloc.start()
    gc.collect()
    # A thread that was joined may be counted for a moment longer.
    deadline = time.monotonic() + SETTLED
    seen = footprint()
    while seen is not None and seen.threads > threading.active_count() and time.monotonic() < deadline:
        seen = footprint()
    return seen, tracemalloc.get_traced_memory()[0]


# ------------------------------------------------------------------ one migration


def _verified(subject: Subject, model: Model, settings: Settings) -> str:
    with subject.machines() as (source, destination):
        calls = {
            slot.name: Calls(slot.device, *methods)
            for machine, methods in ((source, SAVING), (destination, LOADING))
            for slot in machine
        }
        _must_complete(migrate(source, destination, model, settings), "")
        overlapping = [f"{name}: {seen.overlapping}" for name, seen in calls.items() if seen.overlapping]
        if overlapping:
            raise Failure(f"two calls of one device at once, {overlapping[0]}")
        return _proof(source)


def _proof(source: Machine) -> str:
    unproved = [slot.name for slot in source if slot.device.fingerprint() is None]
    if unproved:
        return f"completed, not compared: {unproved[0]} has no fingerprint, only its own checks"
    return "state verified"


def _must_complete(migrated: Migrated, when: str) -> None:
    if not migrated.completed:
        raise Failure(f"the migration{when} did not complete: {migrated.error or migrated.source.outcome.value}")
    if migrated.source.verified is False:
        wrong = [device.name for device in migrated.source.devices if device.verified is False]
        raise Failure(f"the state at the destination{when} is not the source's: {', '.join(wrong)}")


def _again(subject: Subject, source: Machine, model: Model, when: str) -> None:
    with closing(subject.machine("destination")) as destination:
        _must_complete(migrate(source, destination, model, ROOMY), f" {when}")


# ------------------------------------------------------------------ cancels


def _cancel_at(subject: Subject, model: Model, side: Side, position: int) -> bool:
    with closing(subject.machine("source")) as source:
        with closing(subject.machine("destination")) as destination:
            migrated = cancelled_at(source, destination, model, ROOMY, side, position)
        if migrated.source.outcome is State.COMPLETED:
            # It came too late: the machine had moved, and that must be as good as any.
            _must_complete(migrated, f" that was cancelled at wait {position} of the {side}, too late,")
            return False
        when = f"after a cancel at wait {position} of the {side}"
        _resumed(migrated, when)
        _again(subject, source, model, when)
    return True


def _resumed(migrated: Migrated, when: str) -> None:
    if "; and then: " in migrated.source.error:
        why = migrated.source.error.partition("; and then: ")[2]
        raise Failure(f"{when} a device did not resume: {why}", cause=why)


# ------------------------------------------------------------------ errors


def _fail_in(subject: Subject, model: Model, side: Side, method: str, number: int) -> bool:
    with closing(subject.machine("source")) as source:
        with closing(subject.machine("destination")) as destination:
            machine = source if side == "source" else destination
            slot = machine.iterable[0] if machine.iterable else machine.slots[0]
            if not hasattr(slot.device, method):
                return False
            with failing(slot.device, method, number) as raised:
                migrated = migrate(source, destination, model, ROOMY)
        if not raised:
            _must_complete(migrated, "")
            return False
        when = f"after an error in {method} of the {side}"
        said = (migrated.source if side == "source" else migrated.destination).error
        if raised[0] not in said or slot.name not in said:
            raise Failure(f"{when} the migration said {said!r}, which does not name the device and the error")
        _resumed(migrated, when)
        _again(subject, source, model, when)
    return True
