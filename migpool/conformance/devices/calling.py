"""Checks that call a device directly: its identity, what it keeps, damaged input, an abort."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from typing import Final, NamedTuple

from migpool.conformance.check import Failure, NotApplicable
from migpool.conformance.devices.subject import Subject
from migpool.conformance.pairing import SIDES
from migpool.device import Device, DeviceError, Part, Pending, TaggedDevice
from migpool.flow.window import Reassembly
from migpool.wire.devicestate import MAX_U32

CHUNK: Final = 1 << 16
ABORT_LIMIT: Final = 2.0
"""Seconds in which a call must have ended after ``abort``."""
WINDOWS: Final = (1, 2, 8)


class Chunk(NamedTuple):
    """What one call gave: a part with its tag, or the next bytes of a device without tags, whose tag is -1."""

    tag: int
    data: bytes


class Saved(NamedTuple):
    """What a device gave: for ``load_setup``, its chunks, its config."""

    setup: bytes
    chunks: Sequence[Chunk]
    config: bytes


def identity(subject: Subject) -> str:
    """The same devices at both ends, each with a name of its own; pending sizes make sense and do not block."""
    names: list[list[tuple[str, int, bool]]] = []
    for side in SIDES:
        with closing(subject.machine(side)) as machine:  # which refuses a name that is wrong or there twice
            devices = [slot.device for slot in machine]
            names.append([(one.idstr, one.instance_id, one.iterable) for one in devices])
            for device in devices:
                _sane(device)
    if names[0] != names[1]:
        raise Failure(f"the source has {names[0]} and the destination {names[1]}: make the same devices at both ends")
    return f"{len(names[0])} devices"


def out_of_order(subject: Subject) -> str:
    """Load chunks that arrived in the worst order a window allows: each window's last one first."""
    loaded = 0
    for window in WINDOWS:
        with pairs_of(subject) as pairs:
            for source, destination in pairs:
                saved = save(source)
                destination.load_setup(saved.setup)
                loaded += _load_backwards(destination, saved, window)
                destination.load_config(saved.config)
            for _, destination in pairs:
                destination.wake()
            for source, destination in reversed(pairs):
                destination.start()
                destination.verify()
                if source.fingerprint() != destination.fingerprint():
                    raise Failure(
                        f"{destination.idstr}: its state is not the source's, with a window of {window} chunks"
                    )
    return f"{loaded} chunks, windows of {', '.join(map(str, WINDOWS))}"


def keeps_no_buffer(subject: Subject) -> str:
    """A buffer is the device's only during the call: no view of it may be kept."""
    with pairs_of(subject) as pairs:
        for source, destination in pairs:
            if not source.iterable:
                continue
            setup = begin_saving(source)
            destination.load_setup(setup)
            room = bytearray(CHUNK)
            chunk = read_one(source, room)
            tagged = isinstance(source, TaggedDevice)
            _must_be_free(room, source, "save_part" if tagged else "save_state")
            if chunk is not None:
                part = bytearray(chunk.data)
                with memoryview(part) as view:
                    load_one(destination, chunk.tag, view)
                _must_be_free(part, destination, "load_part" if tagged else "load_state")
            return "given back after each call"
    raise NotApplicable("no device is iterable")


def damaged_config(subject: Subject) -> str:
    """A config that is empty, cut, longer or changed is refused by a DeviceError, or taken; nothing else."""
    damages: dict[str, Callable[[bytes], bytes]] = {
        "an empty config": lambda _: b"",
        "a config cut in half": lambda config: config[: len(config) // 2],
        "a config with a byte too many": lambda config: config + b"\0",
        "a config with its first byte changed": lambda config: (
            bytes([config[0] ^ 0xFF]) + config[1:] if config else b""
        ),
    }
    refused = tried = 0
    for what, damage in damages.items():
        with pairs_of(subject) as pairs:
            for source, destination in pairs:
                saved = save(source)
                take_state(destination, saved)
                tried += 1
                refused += _refuses(destination, what, lambda: destination.load_config(damage(saved.config)))  # noqa: B023
    return f"{refused} of {tried} refused"


def missing_state(subject: Subject) -> str:
    """A device that lacks its last chunk must say so, at the config or at its start; its state cannot be right."""
    with pairs_of(subject) as pairs:
        for source, destination in pairs:
            saved = save(source)
            if not saved.chunks:
                continue
            destination.load_setup(saved.setup)
            for chunk in saved.chunks[:-1]:
                load_one(destination, chunk.tag, memoryview(chunk.data))
            if not _refuses(destination, "a config before the last chunk", lambda: _run(destination, saved.config)):  # noqa: B023
                ours, theirs = source.fingerprint(), destination.fingerprint()
                if ours is None or ours == theirs:
                    raise Failure(
                        f"{destination.idstr}: it started without its last chunk and did not notice: "
                        "check in load_config that all state has come, or give it a fingerprint"
                    )
                return "not refused, but its fingerprint tells"
            return "refused"
    raise NotApplicable("no device has state in chunks")


def fingerprints(subject: Subject) -> str:
    """A device with state has a fingerprint at both ends: else nobody can say that what arrived is what left."""
    with pairs_of(subject) as pairs:
        with_state = []
        for source, destination in pairs:
            saved = save(source)
            take_state(destination, saved)
            destination.load_config(saved.config)
            if saved.chunks or saved.config:
                with_state.append((source, destination))
        for _, destination in pairs:
            destination.wake()
        for _, destination in reversed(pairs):
            destination.start()
        without = [one for pair in with_state for one in pair if one.fingerprint() is None]
    if not without:
        return f"{len(with_state)} compared"
    names = ", ".join(dict.fromkeys(one.idstr for one in without))
    if subject.comparable and any(one.comparable for one in without):
        raise Failure(
            f"{names}: state and no fingerprint, so that no migration of it is ever verified: return one, or say that "
            "there can be none (comparable = False in the class, --no-fingerprint here)"
        )
    return f"not compared: {names} can have none"


def aborts(subject: Subject) -> str:
    """An abort ends a call at once, may come twice and at any time; afterwards the device resumes and saves again."""
    seen = 0
    with closing(subject.machine("source")) as machine:
        for device in [slot.device for slot in machine]:
            begin_saving(device)
            ended = _in_thread(lambda: _read_all(device))  # noqa: B023
            began = time.monotonic()
            device.abort()
            device.abort()
            if not ended.wait(ABORT_LIMIT):
                raise Failure(f"{device.idstr}: save_state went on for {ABORT_LIMIT:g} s after abort()")
            seen = max(seen, int((time.monotonic() - began) * 1000))
            device.wake()
            device.resume()
            again = save(device)
            device.resume()
            if sorted(again.chunks) != sorted(save(device).chunks) and device.fingerprint() is None:
                raise Failure(f"{device.idstr}: after resume() it saves another state than before")
    return f"ended within {seen} ms"


# ------------------------------------------------------------------ steps


@contextmanager
def pairs_of(subject: Subject) -> Iterator[list[tuple[Device, Device]]]:
    with subject.machines() as (source, destination):
        yield [(ours.device, theirs.device) for ours, theirs in zip(source, destination, strict=True)]


def _sane(device: Device) -> None:
    pending = device.pending()
    if not isinstance(pending, Pending) or min(pending.precopy, pending.stopcopy, pending.initial) < 0:
        raise Failure(f"{device.idstr}: pending() returned {pending!r}: return a Pending with sizes of 0 or more")
    if pending.initial > pending.precopy:
        raise Failure(f"{device.idstr}: pending() says more initial bytes than pre-copy bytes: they are a part of them")


def begin_saving(device: Device) -> bytes:
    setup = device.save_setup()
    device.quiesce()
    device.stop()
    return setup


def read_one(device: Device, room: bytearray) -> Chunk | None:
    """What one call fills ``room`` with; ``None`` at the end."""
    with memoryview(room) as view:
        if isinstance(device, TaggedDevice):
            part = device.save_part(view)
            if part is None:
                return None
            if not isinstance(part, Part) or not 0 <= part.tag <= MAX_U32:
                raise Failure(
                    f"{device.idstr}: save_part returned {part!r}: return a Part with a tag of 32 bits, or None"
                )
            tag, length, method = part.tag, part.length, "save_part"
        else:
            tag, length, method = -1, device.save_state(view), "save_state"
            if length == 0:
                return None
        if not 0 < length <= len(room):
            raise Failure(f"{device.idstr}: {method} says it filled {length} bytes of a buffer of {len(room)}")
        return Chunk(tag, bytes(view[:length]))


def load_one(device: Device, tag: int, data: memoryview) -> None:
    """Have a device load what one call gave."""
    if isinstance(device, TaggedDevice):
        device.load_part(tag, data)
    else:
        device.load_state(data)


def _read_all(device: Device) -> list[Chunk]:
    chunks: list[Chunk] = []
    room = bytearray(CHUNK)
    while device.iterable and (chunk := read_one(device, room)) is not None:
        chunks.append(chunk)
    return chunks


def save(device: Device) -> Saved:
    """All that a device gives from its set-up to its config; it stands afterwards."""
    setup = begin_saving(device)
    return Saved(setup, _read_all(device), device.save_config())


def take_state(device: Device, saved: Saved) -> None:
    """Load all of it but the config, in order."""
    device.load_setup(saved.setup)
    for chunk in saved.chunks:
        load_one(device, chunk.tag, memoryview(chunk.data))


def _load_backwards(device: Device, saved: Saved, window: int) -> int:
    inbox: Reassembly[Chunk] = Reassembly()
    last = len(saved.chunks) - 1
    for begin in range(0, len(saved.chunks), window):
        end = min(begin + window, len(saved.chunks))
        for index in reversed(range(begin, end)):
            if isinstance(device, TaggedDevice):
                device.load_part(saved.chunks[index].tag, memoryview(saved.chunks[index].data))
                continue
            inbox.put(index, saved.chunks[index], index == last, end)
        while inbox.available:
            chunk = inbox.take()
            assert chunk is not None
            device.load_state(memoryview(chunk.data))
    return len(saved.chunks)


def _must_be_free(room: bytearray, device: Device, method: str) -> None:
    try:
        room.append(0)  # cannot be done while somebody holds a view
    except BufferError:
        raise Failure(
            f"{device.idstr}: {method} keeps a view of the buffer it was given: copy what must outlast the call"
        ) from None


def _refuses(device: Device, what: str, call: Callable[[], None]) -> bool:
    try:
        call()
    except DeviceError:
        return True
    except Exception as error:
        raise Failure(
            f"{device.idstr}: {what} raises {type(error).__name__} ({error}): raise DeviceError with one line"
        ) from error
    return False


def _run(device: Device, config: bytes) -> None:
    device.load_config(config)
    device.wake()
    device.start()
    device.verify()


def _in_thread(call: Callable[[], object]) -> threading.Event:
    begun, ended = threading.Event(), threading.Event()

    def run() -> None:
        begun.set()
        with suppress(DeviceError):
            call()
        ended.set()

    threading.Thread(target=run, name="conformance", daemon=True).start()
    begun.wait()
    return ended
