"""Checks of devices whose parts have tags: any order, several callers at once, and what a tag promises."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final

from migpool.conformance.check import Failure, NotApplicable
from migpool.conformance.devices.calling import (
    ABORT_LIMIT,
    CHUNK,
    Chunk,
    begin_saving,
    pairs_of,
    read_one,
)
from migpool.conformance.devices.subject import Subject
from migpool.device import DeviceError, TaggedDevice

CALLERS: Final = 16
"""The most callers at once, whatever a device says that it is worth."""
SHUFFLES: Final = 3


def part_tags(subject: Subject) -> str:
    """Save with one caller: every part has a tag of its own, a length that fits, and none comes after the end."""
    seen = 0
    for source, _ in _tagged(subject):
        begin_saving(source)
        tags: set[int] = set()
        room = bytearray(CHUNK)
        while (chunk := read_one(source, room)) is not None:
            if chunk.tag in tags:
                raise Failure(f"{source.idstr}: save_part gave the tag {chunk.tag} twice: give each part another one")
            tags.add(chunk.tag)
        for _ in range(2):
            if (chunk := read_one(source, room)) is not None:
                raise Failure(
                    f"{source.idstr}: save_part gave the tag {chunk.tag} after it had returned None: None is the end"
                )
        seen += len(tags)
    return f"{seen} tags"


def parts_in_any_order(subject: Subject) -> str:
    """Load the parts as they came, backwards and shuffled, one at a time: the state must be the same."""
    orders: list[tuple[str, Callable[[list[Chunk]], object]]] = [
        ("as they came", lambda _: None),
        ("backwards", lambda chunks: chunks.reverse()),
        *((f"shuffled by {seed}", random.Random(seed).shuffle) for seed in range(SHUFFLES)),
    ]
    for name, order in orders:
        for source, destination in _tagged(subject):
            setup = begin_saving(source)
            chunks = _save_with(source, 1)
            config = source.save_config()
            order(chunks)
            with _told(destination, f"with its parts loaded {name}"):
                destination.load_setup(setup)
                _load_with(destination, chunks, 1)
                _finish(source, destination, config, f"with its parts loaded {name}")
    return f"{len(orders)} orders"


def parts_at_once(subject: Subject) -> str:
    """Save and load with as many callers at once as the device is worth, in a shuffled order."""
    most = 0
    for source, destination in _tagged(subject):
        when = f"with {_callers(source)} callers at once"
        with _told(source, when):
            setup = begin_saving(source)
            chunks = _save_with(source, _callers(source))
            config = source.save_config()
        random.Random(1).shuffle(chunks)
        when = f"with {_callers(destination)} callers at once"
        with _told(destination, when):
            destination.load_setup(setup)
            _load_with(destination, chunks, _callers(destination))
            _finish(source, destination, config, when)
        most = max(most, _callers(source), _callers(destination))
    return f"up to {most} callers"


def aborts_several(subject: Subject) -> str:
    """An abort ends the calls of every caller at once, at either end; the source's device saves again afterwards."""
    for source, destination in _tagged(subject):
        begin_saving(source)
        calls = [_Caller(partial(_save_until_none, source, {})) for _ in range(_callers(source))]
        _abort(source, calls, "save_part")
        source.wake()
        source.resume()
        setup = begin_saving(source)
        chunks = _save_with(source, 1)
        destination.load_setup(setup)
        shares = [chunks[at :: _callers(destination)] for at in range(_callers(destination))]
        calls = [_Caller(partial(_load_all, destination, share)) for share in shares]
        _abort(destination, calls, "load_part")
    return "every caller ended"


# ------------------------------------------------------------------ steps


def _tagged(subject: Subject) -> Iterator[tuple[TaggedDevice, TaggedDevice]]:
    found = False
    with pairs_of(subject) as pairs:
        for source, destination in pairs:
            if isinstance(source, TaggedDevice) and isinstance(destination, TaggedDevice):
                found = True
                yield source, destination
    if not found:
        raise NotApplicable("no device has parts with tags")


def _callers(device: TaggedDevice) -> int:
    if device.engines < 1:
        raise Failure(f"{device.idstr}: engines is {device.engines}: 1 caller at least must be worth having")
    return min(device.engines, CALLERS)


@contextmanager
def _told(device: TaggedDevice, when: str) -> Iterator[None]:
    """A device that refuses what it must take has failed, and when is said with it."""
    try:
        yield
    except DeviceError as error:
        raise Failure(f"{device.idstr}: {when} it fails: {error}") from error


class _Caller:
    """A thread that calls a device; what it raised is kept."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.error: BaseException | None = None
        self._call = call
        self._thread = threading.Thread(target=self._run, name="conformance", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._call()
        except BaseException as error:  # noqa: BLE001 -- whatever a plug-in raises is a finding
            self.error = error

    def ended(self, limit: float | None = None) -> bool:
        """Wait until it has ended, for ``limit`` seconds at the most."""
        self._thread.join(limit)
        return not self._thread.is_alive()


def _together(calls: Sequence[Callable[[], object]]) -> None:
    callers = [_Caller(call) for call in calls]
    for caller in callers:
        caller.ended()
    for caller in callers:
        if caller.error is not None:
            raise caller.error


def _save_until_none(device: TaggedDevice, into: dict[int, Chunk]) -> None:
    room = bytearray(CHUNK)
    while (chunk := read_one(device, room)) is not None:
        if into.setdefault(chunk.tag, chunk) is not chunk:
            raise Failure(f"{device.idstr}: save_part gave the tag {chunk.tag} twice, with several callers at once")


def _save_with(device: TaggedDevice, callers: int) -> list[Chunk]:
    chunks: dict[int, Chunk] = {}
    _together([partial(_save_until_none, device, chunks)] * callers)
    return list(chunks.values())


def _load_all(device: TaggedDevice, chunks: Sequence[Chunk]) -> None:
    for chunk in chunks:
        device.load_part(chunk.tag, memoryview(chunk.data))


def _load_with(device: TaggedDevice, chunks: Sequence[Chunk], callers: int) -> None:
    shares = [chunks[at::callers] for at in range(callers)]
    _together([partial(_load_all, device, share) for share in shares])


def _finish(source: TaggedDevice, destination: TaggedDevice, config: bytes, when: str) -> None:
    destination.load_config(config)
    destination.wake()
    destination.start()
    destination.verify()
    if source.fingerprint() != destination.fingerprint():
        raise Failure(f"{destination.idstr}: {when} its state is not the source's")


def _abort(device: TaggedDevice, calls: Sequence[_Caller], method: str) -> None:
    device.abort()
    device.abort()
    for call in calls:
        if not call.ended(ABORT_LIMIT):
            raise Failure(
                f"{device.idstr}: with {len(calls)} callers {method} went on for {ABORT_LIMIT:g} s after abort()"
            )
        if call.error is not None and not isinstance(call.error, DeviceError):
            raise Failure(f"{device.idstr}: after abort() {method} raises {type(call.error).__name__} ({call.error})")
