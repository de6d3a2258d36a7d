"""Checks without which no other means anything: devices are made, save and load all of it, on any thread, and abort."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from functools import partial
from typing import Final, TypeVar

from migpool.conformance.check import Failure
from migpool.conformance.devices.calling import (
    ABORT_LIMIT,
    CHUNK,
    Saved,
    begin_saving,
    directly,
    load_one,
    pairs_of,
    read_all,
    read_one,
    save,
)
from migpool.conformance.devices.subject import Subject
from migpool.conformance.pairing import SIDES
from migpool.core.device_calls import under_way
from migpool.core.machine import Slot
from migpool.core.plugin_errors import place_of, raised_at
from migpool.device import Device, DeviceError, MemoryDevice, TaggedDevice
from migpool.units import MIB, count_of

HEADWAY: Final = 1.0
"""Seconds for which a device may say that it has something to save while it runs, and give nothing."""
SHORT: Final = 0.1
"""Seconds after which a call is one that an abort should end."""
T = TypeVar("T")
Step = tuple[str, Callable[[], object]]


def identity(subject: Subject) -> str:
    """The same devices at both ends, each with a name of its own; they say what they have left, and close."""
    names: list[list[tuple[str, int, bool]]] = []
    for side in SIDES:
        with closing(subject.machine(side)) as machine:  # which refuses a name that is wrong or there twice
            devices = [slot.device for slot in machine]
            names.append([(one.idstr, one.instance_id, one.iterable) for one in devices])
            for device in devices:
                ask(device)
                _whole_class(device)
    if names[0] != names[1]:
        raise Failure(f"the source has {names[0]} and the destination {names[1]}: make the same devices at both ends")
    return count_of(len(names[0]), "device")


def ask(device: Device) -> None:
    """Everything that a device may be asked at any time."""
    device.pending()
    device.check_version(device.version)
    device.exact_config()
    device.describe_config()
    device.costs()
    device.needed()


def _whole_class(device: Device) -> None:
    """What an iterable device needs is there, and nothing that is never called."""
    kind = type(device)
    own = [name for name in ("save_state", "load_state") if getattr(kind, name) is not getattr(Device, name)]
    if not device.iterable and own:
        raise Failure(
            f"{device.idstr}: it has a {own[0]}, which is never called since iterable is False: set iterable = True"
            f"{place_of(device, own[0])}"
        )
    if device.iterable and not isinstance(device, TaggedDevice):
        for name in ("save_state", "load_state"):
            if name not in own:
                raise Failure(f"{device.idstr}: iterable is True, and there is no {name}{place_of(device, name)}")


def saves_and_loads(subject: Subject) -> str:
    """Save all state and load it, call by call: each call returns what it may, and the state comes to an end."""
    moved = 0
    with pairs_of(subject) as pairs:
        for source, destination in pairs:
            try:
                moved += move(source, destination)
            except DeviceError as error:
                place, saving = raised_at(error, destination), place_of(source, "save_state")
                said = f"{error}{place}: it was given all that its save_state had given{saving}, in order"
                raise Failure(said if place else str(error)) from error
        compare(pairs, "after all of it was loaded")
    return f"{moved} bytes"


def any_thread(subject: Subject) -> str:
    """The same, each call on another thread than the one before: no state is bound to a thread."""
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other, pairs_of(subject) as pairs:
        turns = [one, other]

        def elsewhere(call: Callable[[], T]) -> T:
            turns.reverse()
            return turns[0].submit(call).result()

        for source, destination in pairs:
            try:
                move(source, destination, elsewhere)
            except DeviceError as error:
                raise Failure(
                    f"{error}: it fails on another thread than the call before was on; any may call"
                ) from error
        compare(pairs, "after each call was made on another thread")
    return "two threads by turns"


def move(source: Device, destination: Device, on: Callable[[Callable[[], object]], object] = directly) -> int:
    """Move a device's state, all but its start at the destination; returns how many bytes.

    Arguments:
        on: makes the calls that a threading model makes.
    """
    setup = source.save_setup()
    destination.load_setup(setup)
    live = _iterate(source)
    source.quiesce()
    source.stop()
    chunks = read_all(source, on)
    config: list[bytes] = []
    on(lambda: config.append(source.save_config()))
    for data in live:
        on(partial(destination.load_state, memoryview(data)))
    for chunk in chunks:
        on(partial(load_one, destination, chunk.tag, memoryview(chunk.data)))
    if not isinstance(destination, MemoryDevice):
        on(partial(destination.load_config, config[0]))
    return len(setup) + sum(map(len, live)) + sum(len(chunk.data) for chunk in chunks) + len(config[0])


def _iterate(device: Device) -> list[bytes]:
    """What a device gives while it runs, about as much as it says that it has."""
    given: list[bytes] = []
    if not device.iterable or isinstance(device, TaggedDevice):
        return given
    wanted = device.pending().precopy
    room = bytearray(min(CHUNK, MIB))
    deadline = time.monotonic() + HEADWAY
    while wanted > 0 and (left := device.pending().precopy) > 0:
        with memoryview(room) as view:
            length = device.iterate(view)
            given += [bytes(view[:length])] if length else []
        wanted -= length
        if length:
            deadline = time.monotonic() + HEADWAY
        elif time.monotonic() > deadline:
            raise Failure(
                f"{device.idstr}: pending says that {left} bytes can be saved while the machine runs, and iterate has "
                f"given none for {HEADWAY:g} s: one of them is wrong{place_of(device, 'iterate')}"
            )
    return given


def compare(pairs: Sequence[tuple[Device, Device]], when: str) -> None:
    """Start the devices at the destination, and compare their state with what was saved.

    Raises:
        Failure: it is another one.
    """
    for _, destination in pairs:
        destination.wake()
    for _, destination in reversed(pairs):
        destination.start()
    if any(isinstance(source, MemoryDevice) for source, _ in pairs):
        return  # what else there is may be compared only with its pages in place
    for source, destination in pairs:
        destination.verify()
        if source.fingerprint() != destination.fingerprint():
            raise Failure(
                f"{destination.idstr}: {when} its state is not the source's: their fingerprints differ"
                f"{place_of(destination, 'load_state' if destination.iterable else 'load_config')}"
            )


# ------------------------------------------------------------------ aborts


def ends_when_aborted(subject: Subject) -> str:
    """An abort ends the first read, however long the device would take; what else goes wrong is not looked at here."""
    with closing(subject.machine("source")) as machine:
        for slot in machine:
            try:
                begin_saving(slot.device)
                reading = _begun(partial(read_all, slot.device))
                _aborted(slot, reading, "save_part" if _tagged(slot.device) else "save_state")
            except DeviceError:
                continue
    return f"each within {ABORT_LIMIT:g} s"


def aborts(subject: Subject) -> str:
    """An abort ends a call at once, may come twice and at any time; afterwards the device resumes and saves again."""
    seen = 0.0
    with closing(subject.machine("source")) as machine:
        for slot in machine:
            device = slot.device
            begin_saving(device)
            reading = _begun(partial(read_all, device))
            seen = max(seen, _aborted(slot, reading, "save_part" if _tagged(device) else "save_state"))
            _again(device)
            tried: set[str] = set()
            while (took := _pass(slot, _saving(device), tried)) is not None:
                seen = max(seen, took)
                device.wake()
                device.resume()
            device.resume()
            saved = save(device)
            _loads_aborted(subject, slot.number, saved)
    return f"ended within {seen * 1000:.0f} ms"


def _again(device: Device) -> None:
    device.wake()
    device.resume()
    again = save(device)
    device.resume()
    if again.state() != save(device).state() and device.fingerprint() is None:
        raise Failure(f"{device.idstr}: after resume() it saves another state than before{place_of(device, 'resume')}")
    device.resume()


def _loads_aborted(subject: Subject, number: int, saved: Saved) -> None:
    """Abort each call of the destination's that takes its time, each on a device of its own."""
    tried: set[str] = set()
    more: float | None = 0.0
    while more is not None:
        with closing(subject.machine("destination")) as machine:
            slot = machine.slots[number]
            if isinstance(slot.device, MemoryDevice):
                return
            more = _pass(slot, _loading(slot.device, saved), tried)


def _saving(device: Device) -> list[Step]:
    steps: list[Step] = [("save_setup", device.save_setup), ("quiesce", device.quiesce), ("stop", device.stop)]
    if device.iterable:
        room = bytearray(CHUNK)
        steps.append(("save_part" if _tagged(device) else "save_state", lambda: read_one(device, room)))
    return [*steps, ("save_config", device.save_config)]


def _loading(device: Device, saved: Saved) -> list[Step]:
    steps: list[Step] = [("load_setup", lambda: device.load_setup(saved.setup))]
    name = "load_part" if _tagged(device) else "load_state"
    steps += [(name, partial(load_one, device, tag, memoryview(data))) for tag, data in saved.chunks]
    return [*steps, ("load_config", lambda: device.load_config(saved.config))]


def _tagged(device: Device) -> bool:
    return isinstance(device, TaggedDevice)


def _pass(slot: Slot, steps: Sequence[Step], tried: set[str]) -> float | None:
    """Make the calls up to the first of a method that takes its time and was not aborted before; abort that one.

    Returns:
        How long it took to end; ``None`` if there was no such call.
    """
    for method, call in steps:
        ended = _begun(call)
        if method in tried:
            ended.wait()
        elif not ended.wait(SHORT):
            tried.add(method)
            return _aborted(slot, ended, method)
    return None


def _begun(call: Callable[[], object]) -> threading.Event:
    """Begin a call on a thread of its own; an error of the device's is no matter here."""
    begun, ended = threading.Event(), threading.Event()

    def run() -> None:
        begun.set()
        with suppress(DeviceError, Failure):
            call()
        ended.set()

    threading.Thread(target=run, name="conformance", daemon=True).start()
    begun.wait()
    return ended


def _aborted(slot: Slot, ended: threading.Event, method: str) -> float:
    began = time.monotonic()
    slot.device.abort()
    slot.device.abort()
    if not ended.wait(ABORT_LIMIT):
        seen = next((one for one in under_way(0) if one.call.owner is slot), None)
        where, stack = (f": {seen}", seen.stack) if seen else (place_of(slot.device, "abort"), ())
        raise Failure(f"{slot.name}: {method} went on for {ABORT_LIMIT:g} s after abort(){where}", stack=stack)
    return time.monotonic() - began
