"""Checks that call a device directly: the order of its chunks, what it keeps; and the steps of all that do so."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple

from migpool.conformance.check import Failure, NotApplicable
from migpool.conformance.devices.subject import Subject
from migpool.core.plugin_errors import place_of
from migpool.device import Device, DeviceError, MemoryDevice, TaggedDevice
from migpool.flow.window import Reassembly
from migpool.units import MIB

CHUNK: Final = 1 << 16
ABORT_LIMIT: Final = 2.0
"""Seconds in which a call must have ended after ``abort``."""
WINDOWS: Final = (1, 2, 8)
POISON: Final = b"\xa5"
KEPT: Final = 64
"""How many buffers are looked at again later."""
ENDLESS: Final = 64 * MIB
"""Bytes of state after which a device that said that it had far less is told to have no end."""


class Chunk(NamedTuple):
    """What one call gave: a part with its tag, or the next bytes of a device without tags, whose tag is -1."""

    tag: int
    data: bytes


class Saved(NamedTuple):
    """What a device gave: for ``load_setup``, its chunks, its config."""

    setup: bytes
    chunks: Sequence[Chunk]
    config: bytes

    def state(self) -> Sequence[tuple[int, bytes]]:
        """What it is, whatever pieces it came in and, with tags, in whatever order."""
        whole = b"".join(chunk.data for chunk in self.chunks if chunk.tag < 0)
        return [(-1, whole), *sorted(chunk for chunk in self.chunks if chunk.tag >= 0)]


def out_of_order(subject: Subject) -> str:
    """Load chunks that arrived in the worst order a window allows: each window's last one first."""
    loaded = 0
    for window in WINDOWS:
        with pairs_of(subject) as pairs:
            if any(isinstance(source, MemoryDevice) for source, _ in pairs):
                raise NotApplicable("the machine has a memory, whose pages cross in a whole migration only")
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


def resumes(subject: Subject) -> str:
    """A device that was saved and runs again saves all of its state at the next migration."""
    with pairs_of(subject) as pairs:
        for source, _ in pairs:
            save(source)
        for source, _ in pairs:
            source.wake()
        for source, _ in pairs:
            source.resume()
        for source, destination in pairs:
            where = place_of(source, "resume")
            try:
                saved = save(source)
                take_state(destination, saved)
                if not isinstance(destination, MemoryDevice):
                    destination.load_config(saved.config)
            except DeviceError as error:
                raise Failure(f"after resume() what it saves cannot be loaded: {error}{where}") from error
            if source.iterable:
                destination.wake()
                destination.start()
                if source.fingerprint() != destination.fingerprint():
                    raise Failure(f"{source.idstr}: after resume() it does not save all of its state{where}")
    return "saved and loaded after resume()"


def keeps_no_buffer(subject: Subject) -> str:
    """A buffer is the device's only during the call: it is overwritten afterwards, and no view of it may be kept."""
    moved = 0
    with pairs_of(subject) as pairs:
        for source, destination in pairs:
            if not source.iterable:
                continue
            tagged = isinstance(source, TaggedDevice)
            destination.load_setup(begin_saving(source))
            chunks, rooms = _read_into_many(source, "save_part" if tagged else "save_state")
            config = source.save_config()
            _must_be_untouched(rooms, source, "save_part" if tagged else "save_state")
            rooms.clear()
            for chunk in chunks:
                part = bytearray(chunk.data)
                load_one(destination, chunk.tag, memoryview(part))
                _give_back(part, destination, "load_part" if tagged else "load_state", rooms)
            load_and_start(destination, config)
            _must_be_untouched(rooms, destination, "load_part" if tagged else "load_state")
            if source.fingerprint() != destination.fingerprint():
                raise Failure(
                    f"{destination.idstr}: its state is not the source's when each buffer is overwritten after its "
                    f"call: copy what must outlast the call{place_of(destination, 'load_state')}"
                )
            moved += len(chunks)
    if not moved:
        raise NotApplicable("no device is iterable")
    return f"{moved} buffers, given back after each call"


# ------------------------------------------------------------------ steps


def directly(made: Callable[[], object]) -> object:
    """Make a call here."""
    return made()


@contextmanager
def pairs_of(subject: Subject) -> Iterator[list[tuple[Device, Device]]]:
    with subject.machines() as (source, destination):
        yield [(ours.device, theirs.device) for ours, theirs in zip(source, destination, strict=True)]


def begin_saving(device: Device) -> bytes:
    setup = device.save_setup()
    device.quiesce()
    device.stop()
    return setup


def read_one(device: Device, room: bytearray) -> Chunk | None:
    """What one call fills ``room`` with; ``None`` at the end. The call itself is checked by the guard."""
    view = memoryview(room)  # not released here: who keeps it is found
    if isinstance(device, TaggedDevice):
        part = device.save_part(view)
        return None if part is None else Chunk(part.tag, bytes(room[: part.length]))
    length = device.save_state(view)
    return Chunk(-1, bytes(room[:length])) if length else None


def load_one(device: Device, tag: int, data: memoryview) -> None:
    """Have a device load what one call gave."""
    if isinstance(device, TaggedDevice):
        device.load_part(tag, data)
    else:
        device.load_state(data)


def read_all(device: Device, on: Callable[[Callable[[], object]], object] = directly) -> list[Chunk]:
    """All state of a device that stands, to its end.

    Arguments:
        on: makes each call.

    Raises:
        Failure: it does not come to its end.
    """
    chunks: list[Chunk] = []
    if not device.iterable:
        return chunks
    room = bytearray(CHUNK)
    left = device.pending()
    most = ENDLESS + 16 * (left.precopy + left.stopcopy)
    method, end = ("save_part", "None") if isinstance(device, TaggedDevice) else ("save_state", "0")
    given = 0
    read: list[Chunk | None] = []
    while given <= most:
        read.clear()
        on(lambda: read.append(read_one(device, room)))
        if (chunk := read[0]) is None:
            return chunks
        chunks.append(chunk)
        given += len(chunk.data)
    raise Failure(
        f"{device.idstr}: {method} has given {given} bytes and has not come to an end, where pending said "
        f"{left.precopy + left.stopcopy}: return {end} when all state has been saved{place_of(device, method)}"
    )


def save(device: Device) -> Saved:
    """All that a device gives from its set-up to its config; it stands afterwards."""
    setup = begin_saving(device)
    return Saved(setup, read_all(device), device.save_config())


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


def _read_into_many(device: Device, method: str) -> tuple[list[Chunk], list[bytearray]]:
    """All state, each chunk read into a buffer of its own; and the last of these, overwritten."""
    chunks: list[Chunk] = []
    rooms: list[bytearray] = []
    while True:
        room = bytearray(CHUNK)
        chunk = read_one(device, room)
        _give_back(room, device, method, rooms)
        if chunk is None:
            return chunks, rooms[-KEPT:]
        chunks.append(chunk)


def _give_back(room: bytearray, device: Device, method: str, rooms: list[bytearray]) -> None:
    try:
        room.append(0)  # cannot be done while somebody holds a view
    except BufferError:
        raise Failure(
            f"{device.idstr}: {method} keeps a view of the buffer it was given: copy what must outlast the call"
            f"{place_of(device, method)}"
        ) from None
    room[:] = POISON * len(room)
    rooms.append(room)


def _must_be_untouched(rooms: Sequence[bytearray], device: Device, method: str) -> None:
    if any(room.count(POISON) != len(room) for room in rooms):
        raise Failure(
            f"{device.idstr}: its buffer was written after {method} had returned: fill it during the call"
            f"{place_of(device, method)}"
        )


def load_and_start(device: Device, config: bytes) -> None:
    device.load_config(config)
    device.wake()
    device.start()
    device.verify()
