"""Calls of devices: what each thread is doing in one, and which call lasts for long.

The data path pays nothing for :func:`under_way`: a job is noted once for the thread that runs it, and says itself which
call it is in. Atomic: each store and look-up of the note, and the copy of all.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import get_ident
from time import monotonic_ns
from types import FrameType
from typing import Final, Protocol, TypeVar

from migpool.core.plugin_errors import Owner, files_of, line_in, located, origin

T = TypeVar("T")
OURS: Final = ("migpool/", "threading.py", "concurrent/")
"""How the lines begin that are in the stack of any thread."""
LONG: Final = 3.0
"""Seconds after which a call is worth telling of to whoever waits."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a device's method that has not returned.

    Arguments:
        method: its name.
        index: the chunk that it is about; -1 without one.
        since: when it began, by CLOCK_MONOTONIC in nanoseconds.
    """

    owner: Owner
    method: str
    index: int
    since: int

    def call(self) -> Call:
        return self


class Noted(Protocol):
    """What a thread is noted with: a call, or a job, which knows its call."""

    def call(self) -> Call | None: ...


NOTES: Final[dict[int, Noted | None]] = {}
"""By thread: what it does in a device; ``None`` when it has left it."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A call that has lasted for long.

    Attributes:
        place: the plug-in's line that is executed, as ``file:line``.
        stack: the plug-in's frames and what they call, the outermost first, each ``file:line function``.
    """

    call: Call
    seconds: float
    place: str
    stack: tuple[str, ...]

    @property
    def what(self) -> str:
        """Which device is in which of its methods."""
        return f"{self.call.owner.name} has been in {self.call.method}"

    @property
    def where(self) -> str:
        """The plug-in and its line, in brackets; may be empty."""
        return origin(self.call.owner, self.call.method, self.place)

    def __str__(self) -> str:
        return f"{self.what} for {self.seconds:.0f} s{self.where}"


def under_way(longer_than: float = LONG) -> list[Seen]:
    """The calls that have lasted for so many seconds, the longest first; only those that run the plug-in's own code."""
    now = monotonic_ns()
    found: list[Seen] = []
    for ident, noted in NOTES.copy().items():
        call = None if noted is None else noted.call()
        if call is None or (now - call.since) / 1e9 < longer_than:
            continue
        # Of one thread, and not kept: the frame of this call, kept in itself, would keep all that its callers hold.
        place, stack = _stack(sys._current_frames().get(ident), files_of(call.owner.device))
        if place:
            found.append(Seen(call, (now - call.since) / 1e9, place, stack))
    return sorted(found, key=lambda seen: -seen.seconds)


@contextmanager
def noted(owner: Owner, method: str) -> Iterator[None]:
    """While this is entered, the calling thread is in that method."""
    ident = get_ident()
    before = NOTES.get(ident)
    NOTES[ident] = Call(owner, method, -1, monotonic_ns())
    try:
        yield
    finally:
        NOTES[ident] = before


def of(owner: Owner, method: str, call: Callable[[], T]) -> T:
    """Call a device outside of a job; an error says which device it was, and what it was doing."""
    try:
        with noted(owner, method):
            return call()
    except BaseException as error:
        found = located(error, owner, method)
        if found is error:
            raise
        raise found from found.__cause__


def _stack(frame: FrameType | None, files: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """The plug-in's innermost line, and all frames from its outermost one on; nothing if it has none."""
    lines: list[str] = []
    innermost, outermost = "", 0
    while frame is not None:
        code = frame.f_code
        place = line_in(code.co_filename, frame.f_lineno)
        lines.append(f"{place} {code.co_name}")
        if files and code.co_filename.startswith(files):
            innermost, outermost = innermost or place, len(lines)
        frame = frame.f_back
    return innermost, tuple(reversed(lines[:outermost]))


def stack_of(frame: FrameType | None) -> tuple[str, ...]:
    """All frames of a thread that are not Python's own or migpool's, or that were called by others; outermost first."""
    lines: list[str] = []
    while frame is not None:
        lines.append(f"{line_in(frame.f_code.co_filename, frame.f_lineno)} {frame.f_code.co_name}")
        frame = frame.f_back
    foreign = [at for at, line in enumerate(lines) if not line.startswith(OURS)]
    return tuple(reversed(lines[: foreign[-1] + 1])) if foreign else ()


@contextmanager
def exits_told(tell: Callable[[str], object]) -> Iterator[None]:
    """While this is entered, ``os._exit`` says first who called it, since nobody can afterwards.

    Arguments:
        tell: is given a line, on the thread that calls; not for calls of processes that were forked from this one.
    """
    really, process = os._exit, os.getpid()

    def telling(status: int) -> None:
        if os.getpid() == process:
            note = NOTES.get(get_ident())
            call = None if note is None else note.call()
            line = line_in(sys._getframe(1).f_code.co_filename, sys._getframe(1).f_lineno)
            where = f"{call.owner.name}: its {call.method} has called" if call else "something has called"
            told = origin(call.owner, call.method, line) if call else f" ({line})"
            tell(f"{where} os._exit({status}), which ends the process: raise a DeviceError instead{told}")
        really(status)

    os._exit = telling  # type: ignore[assignment]
    try:
        yield
    finally:
        os._exit = really
