"""A check of what devices declare that their configs need: two calls at once, one of them held at each of its lines.

A lock that is missing shows only when two calls meet at the wrong place. So they are made to meet at every place: one
call runs on a thread that is traced, until it is about to begin its k-th line in the plug-in's files; there it is held
while another call runs from its beginning to its end; then it goes on. Whatever either does must be what it does alone.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Final, Generic, TypeAlias, TypeVar

from migpool.conformance.check import Failure, NotApplicable, Refused
from migpool.conformance.devices.calling import Saved, save, take_state
from migpool.conformance.devices.subject import Subject
from migpool.conformance.pairing import spread
from migpool.core.machine import Machine
from migpool.core.plugin_errors import files_of
from migpool.device import Device, DeviceError, Side

STEPS: Final = 48
"""At how many lines a call is held, evenly spread over those that it has."""
PAIRS: Final = 12
"""How many pairs of devices are looked at, evenly spread."""
BUDGET: Final = 12.0
"""Seconds after which no further meeting is begun, of saves and of loads each."""
GRACE: Final = 0.25
"""Seconds that a call which waits for the held one is given, before that one goes on."""
SHORT_GRACE: Final = 0.02
"""The same, once a call of the pair has been seen to wait."""
LIMIT: Final = 5.0
"""Seconds in which both calls must have ended after that."""

T = TypeVar("T")
Places: TypeAlias = tuple[tuple[int, int], ...]
"""Pairs of devices, by their place in the machine: the one that is held, and the other."""


def config_locks(subject: Subject) -> str:
    """Two configs at once, of devices that need less than the big lock: one is held at each line of its call."""
    with ExitStack() as stack:
        sources = _machines(subject, "source", stack)
        if all(one.save_lock == one.load_lock == "big" for one in sources):
            raise NotApplicable("every config needs the big lock")
        saved = [save(device) for device in sources]
        expected = [device.fingerprint() for device in sources]
        meetings = _saves(sources, saved) + _loads(subject, sources, saved, expected)
    if not meetings:
        raise NotApplicable("no call can be held and repeated: none has a line in the plug-in's own files")
    return f"{meetings} meetings of two calls"


def _saves(devices: Sequence[Device], saved: Sequence[Saved]) -> int:
    pairs = _pairs([one.save_lock for one in devices], devices, itself=True)
    again = {place: _again(devices[place]) for place in sorted({place for pair in pairs for place in pair})}
    # What is another one at each call cannot be compared; it may still raise.
    alone = {place: one if one == saved[place].config else None for place, one in again.items()}
    grace = _Grace()
    deadline = time.monotonic() + BUDGET
    meetings = 0
    for first, second in pairs:
        if again[first] is None or again[second] is None:
            continue
        ours, theirs = devices[first], devices[second]
        count = _Held(ours.save_config, files_of(ours)).run_through()
        for step in _some(count, STEPS):
            if time.monotonic() > deadline:
                return meetings
            held = _Held(ours.save_config, files_of(ours), step + 1)
            found = _meet(held, _Call(theirs.save_config), grace, ours, theirs, "save")
            for device, before, now in zip((ours, theirs), (alone[first], alone[second]), found, strict=True):
                if before is not None and now != before:
                    _fail(device, ours, theirs, "save", held, "gave other bytes than alone")
            meetings += 1
    return meetings


def _again(device: Device) -> bytes | None:
    """Its config at a second call; ``None`` if it refuses that, as it may: a migration has only one."""
    try:
        return device.save_config()
    except DeviceError:
        return None


def _loads(
    subject: Subject, sources: Sequence[Device], saved: Sequence[Saved], expected: Sequence[bytes | None]
) -> int:
    grace = _Grace()
    deadline = time.monotonic() + BUDGET
    meetings = 0
    for first, second in _pairs([one.load_lock for one in sources], sources):
        before = _before(sources, first, second)
        if before is None:
            continue
        with _all_but(subject, saved, before) as devices:
            count = _Held(_loading(devices[first], saved[first]), files_of(devices[first])).run_through()
        for step in _some(count, STEPS):
            if time.monotonic() > deadline:
                return meetings
            with _all_but(subject, saved, before) as devices:
                ours, theirs = devices[first], devices[second]
                held = _Held(_loading(ours, saved[first]), files_of(ours), step + 1)
                _meet(held, _Call(_loading(theirs, saved[second])), grace, ours, theirs, "load")
                _start(devices, saved, {first, second, *before})
                for place, device in ((first, ours), (second, theirs)):
                    if expected[place] is not None and device.fingerprint() != expected[place]:
                        _fail(device, ours, theirs, "load", held, "left another state than the source's")
            meetings += 1
    return meetings


@contextmanager
def _all_but(subject: Subject, saved: Sequence[Saved], before: set[int]) -> Iterator[list[Device]]:
    """New devices of the destination with all their state, of which only some have loaded their config, too."""
    with ExitStack() as stack:
        devices = _machines(subject, "destination", stack)
        for place, (device, one) in enumerate(zip(devices, saved, strict=True)):
            take_state(device, one)
            if place in before:
                device.load_config(one.config)
        yield devices


def _loading(device: Device, saved: Saved) -> Callable[[], None]:
    return lambda: device.load_config(saved.config)


def _start(devices: Sequence[Device], saved: Sequence[Saved], loaded: set[int]) -> None:
    for place, device in enumerate(devices):
        if place not in loaded:
            device.load_config(saved[place].config)
    for device in devices:
        device.wake()
    for device in reversed(devices):
        device.start()


# ------------------------------------------------------------------ which devices meet


def _machines(subject: Subject, side: Side, stack: ExitStack) -> list[Device]:
    """The devices of one side; of two machines with states of their own, if one machine has only one device."""
    machines: list[Machine] = [stack.enter_context(closing(subject.machine(side)))]
    if len(machines[0].slots) == 1:
        try:
            machines.append(stack.enter_context(closing(subject.machine(side, seed=2))))
        except Refused as error:
            why = f"there is one device, and no second one can be made ({error}): try --count 2"
            raise NotApplicable(why) from None
    return [slot.device for machine in machines for slot in machine]


def _pairs(locks: Sequence[str], devices: Sequence[Device], *, itself: bool = False) -> Places:
    """Each device and the next one of its class, if one of them declares less than the big lock.

    Arguments:
        locks: what each declares.
        itself: also two calls of one device, if it declares that it needs no lock at all.
    """
    order = sorted(range(len(devices)), key=lambda place: type(devices[place]).__qualname__)
    found = [
        (first, second)
        for first, second in zip(order, order[1:] + order[:1], strict=True)
        if first != second and (locks[first] != "big" or locks[second] != "big")
    ]
    if itself:
        found += [(place, place) for place in order if locks[place] == "none"]
    return tuple(found[place] for place in _some(len(found), PAIRS))


def _some(count: int, wanted: int) -> list[int]:
    return spread(count, wanted) if count else []


def _before(devices: Sequence[Device], first: int, second: int) -> set[int] | None:
    """The devices that are loaded before both; ``None`` if one of the two is loaded before the other."""
    places = {_name(device): place for place, device in enumerate(devices)}
    needed: set[int] = set()
    open_ = [first, second]
    while open_:
        for name in devices[open_.pop()].after:
            place = places.get(name)
            if place in (first, second):
                return None
            if place is not None and place not in needed:
                needed.add(place)
                open_.append(place)
    return needed | set(range(min(first, second)))


def _name(device: Device) -> str:
    return f"{device.idstr}#{device.instance_id}" if device.instance_id else device.idstr


# ------------------------------------------------------------------ two calls at once


@dataclass(slots=True)
class _Grace:
    """How long a call is waited for that may wait for the held one."""

    seconds: float = GRACE

    def seen_waiting(self) -> None:
        self.seconds = SHORT_GRACE


class _Call(Generic[T]):
    """A call on a thread of its own."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self.answer: list[T] = []
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="conformance", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def ended(self, seconds: float) -> bool:
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self.answer.append(self._call())
        except BaseException as error:  # noqa: BLE001 -- whatever it raises here and not alone is a finding
            self.error = error


class _Held(_Call[T]):
    """A call that stops before a line of the plug-in's files.

    Arguments:
        files: the plug-in's folders and files.
        at: before which line of those that it runs, counted from 1; 0 for none.
    """

    def __init__(self, call: Callable[[], T], files: tuple[str, ...], at: int = 0) -> None:
        super().__init__(call)
        self._files = files
        self._at = at
        self._lines = 0
        self.where = ""
        self.held = threading.Event()
        self.go_on = threading.Event()

    def run_through(self) -> int:
        """Run it without holding it, and count its lines.

        Raises:
            Failure: it raises, or does not end.
        """
        self.start()
        if not self.ended(LIMIT):
            raise Failure(f"a config that is saved or loaded alone has not ended after {LIMIT:g} s")
        if self.error is not None:
            raise Failure(f"a second call raises {type(self.error).__name__}: {self.error}")
        return self._lines

    def _run(self) -> None:
        sys.settrace(self._entered)
        try:
            super()._run()
        finally:
            sys.settrace(None)
            self.held.set()

    def _entered(self, frame: FrameType, event: str, _: object) -> Callable[[FrameType, str, Any], Any] | None:
        return self._at_line if event == "call" and frame.f_code.co_filename.startswith(self._files) else None

    def _at_line(self, frame: FrameType, event: str, _: object) -> Callable[[FrameType, str, Any], Any]:
        if event == "line":
            self._lines += 1
            if self._lines == self._at:
                self.where = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
                self.held.set()
                self.go_on.wait()
        return self._at_line


def _meet(held: _Held[T], other: _Call[T], grace: _Grace, ours: Device, theirs: Device, what: str) -> list[T]:
    """Hold one call, run the other, let the first go on; return what both returned.

    Raises:
        Failure: one raises, or they do not end.
    """
    held.start()
    held.held.wait(LIMIT)
    other.start()
    if not other.ended(grace.seconds):
        grace.seen_waiting()  # for the held one, it may be: a lock of the device's own is right
    held.go_on.set()
    for device, call in ((ours, held), (theirs, other)):
        if not call.ended(LIMIT):
            _fail(device, ours, theirs, what, held, f"has not ended {LIMIT:g} s after the other went on")
        if call.error is not None:
            _fail(device, ours, theirs, what, held, f"raised {type(call.error).__name__}: {call.error}")
    return [held.answer[0], other.answer[0]]


def _fail(device: Device, ours: Device, theirs: Device, what: str, held: _Held[Any], wrong: str) -> None:
    declared = device.save_lock if what == "save" else device.load_lock
    other = "the same call" if ours is theirs else f"{what}_config of {_name(theirs)}"
    raise Failure(
        f"{_name(device)}: with {other} while {what}_config of {_name(ours)} stood at {held.where}, its {what}_config "
        f'{wrong}: they share something; {what}_lock = "{declared}" is too little, or each needs its own'
    )
