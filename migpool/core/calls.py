"""Calls of devices: which are under way, and how an error of one names the device, the method and the plug-in's line.

Guarantees:

1. Whatever a device's method raises becomes one :class:`~migpool.errors.DeviceError`, also what ends a thread or a
   program elsewhere (``sys.exit``). Only a KeyboardInterrupt on the main thread, where Ctrl-C comes, is passed on.
2. The data path pays nothing for :func:`under_way`: a job is noted once for the thread that runs it, and says itself
   which call it is in. Atomic: each store and look-up of the note.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import get_ident
from time import monotonic_ns
from traceback import format_exception
from types import CodeType, FrameType, TracebackType
from typing import Final, Protocol, TypeVar

from migpool.device import Device
from migpool.errors import BrokenDeviceError, DeviceError, MigpoolError

T = TypeVar("T")
OURS: Final = ("migpool/", "threading.py", "concurrent/")
"""How the lines begin that are in the stack of any thread."""
LONG: Final = 3.0
"""Seconds after which a call is worth telling of to whoever waits."""


class Owner(Protocol):
    """Whose method is called: a :class:`~migpool.core.machine.Slot`, as a rule."""

    @property
    def name(self) -> str: ...
    @property
    def plugin(self) -> str: ...
    @property
    def device(self) -> object: ...


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
    for ident, noted in list(NOTES.items()):
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


def located(error: BaseException, owner: Owner, doing: str, index: int | None = None) -> BaseException:
    """Add the device and the chunk to an error; a plug-in's unexpected exception becomes one line, itself the cause.

    Arguments:
        doing: what the device was asked to do: a method of it, as a rule.
        index: the chunk that it was about.
    """
    if isinstance(error, DeviceError):
        return error.located(owner.name, index)
    if isinstance(error, MigpoolError) or _of_the_user(error):
        return error
    where = origin(owner, doing, _place_of_error(error, files_of(owner.device)))
    what = f"{raised(error)} in its {doing}{said(error)}"
    found = BrokenDeviceError(f"{what}: only a DeviceError may come out of it{where}")
    found.__cause__ = error
    return found.located(owner.name, index)


def raised(error: BaseException) -> str:
    """What was raised, as its author wrote it."""
    return f"sys.exit({error.code!r})" if isinstance(error, SystemExit) else type(error).__name__


def said(error: BaseException) -> str:
    """What an exception says, after a colon; nothing if it says nothing, or cannot."""
    if isinstance(error, SystemExit):
        return ""
    try:
        text = " ".join(str(error).split())
    except Exception:  # noqa: BLE001 -- an exception whose own __str__ fails
        return ""
    return text and f": {text}"


def wrong(owner: Owner, method: str, came: object, allowed: str) -> BrokenDeviceError:
    """The error for what a method must not return.

    Arguments:
        came: what it returned.
        allowed: what it may.
    """
    text = f"its {method} returned {shown(came)}: it must return {allowed}{origin(owner, method)}"
    return BrokenDeviceError(text).located(owner.name)


def shown(value: object) -> str:
    """A value in a few words, whatever its ``__repr__`` does."""
    try:
        text = " ".join(repr(value).split())
    except BaseException:  # noqa: BLE001 -- a plug-in's
        text = ""
    return text if 0 < len(text) <= MOST_SHOWN else f"a {type(value).__name__}"


MOST_SHOWN: Final = 60


def traceback_of(error: BaseException | None) -> str:
    """The traceback of what a plug-in raised that it must not; empty for an error that says all itself."""
    cause = error and error.__cause__
    return "" if cause is None or isinstance(cause, MigpoolError) else "".join(format_exception(cause))


# ------------------------------------------------------------------ where the plug-in's code is


def origin(owner: Owner, method: str, place: str = "") -> str:
    """The plug-in and the line, in brackets; ``place``: instead of where the method is defined."""
    place = place or _defining(owner.device, method)
    told = ", ".join(filter(None, (owner.plugin and f"plug-in {owner.plugin}", place)))
    return told and f" ({told})"


def place_of(device: object, method: str) -> str:
    """Where a device's method is defined, in brackets."""
    place = _defining(device, method)
    return place and f" ({place})"


def _defining(device: object, method: str) -> str:
    """``file:line`` of a device's method, or of its class where it has none of its own; of a function itself."""
    if not isinstance(device, Device):
        return defined_at(device)
    function = getattr(type(device), method, None)
    own = function is not None and not getattr(function, "__module__", "").startswith("migpool.device")
    return defined_at(function if own else type(device))


def defined_at(function: object) -> str:
    """``file:line`` of a function or of a class; empty if it has none."""
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    if not isinstance(code, CodeType):
        code = getattr(getattr(function, "__init__", None), "__code__", None)
    return _place(code.co_filename, code.co_firstlineno) if isinstance(code, CodeType) else ""


def files_of(made: object) -> tuple[str, ...]:
    """The folder of the package, or the file of the module, of a function or of each class that a device is made of."""
    classes = [made] if callable(made) and not isinstance(made, Device) else type(made).__mro__
    return tuple(dict.fromkeys(place for one in classes for place in _places(getattr(one, "__module__", ""))))


def _places(module_name: str) -> Iterator[str]:
    if module_name in ("", "abc", "builtins") or module_name.startswith("migpool."):
        return
    module = sys.modules.get(module_name.partition(".")[0])
    for folder in getattr(module, "__path__", ()):
        yield f"{folder}/"
    if (file := getattr(module, "__file__", None)) is not None:
        yield file


def _place(filename: str, line: int | None) -> str:
    """``package/module.py:12``: from where its package is, as a traceback would say it from there."""
    path = Path(filename)
    top = path.parent
    while (top / "__init__.py").exists():
        top = top.parent
    return f"{path.relative_to(top) if path.is_relative_to(top) else path}:{line}"


def _place_of_error(error: BaseException, files: tuple[str, ...]) -> str:
    """The deepest line of the plug-in's that the error came through."""
    place = ""
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename.startswith(files or ("\0",)):
            place = _place(trace.tb_frame.f_code.co_filename, trace.tb_lineno)
        trace = trace.tb_next
    return place


def _stack(frame: FrameType | None, files: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """The plug-in's innermost line, and all frames from its outermost one on; nothing if it has none."""
    lines: list[str] = []
    innermost, outermost = "", 0
    while frame is not None:
        code = frame.f_code
        place = _place(code.co_filename, frame.f_lineno)
        lines.append(f"{place} {code.co_name}")
        if files and code.co_filename.startswith(files):
            innermost, outermost = innermost or place, len(lines)
        frame = frame.f_back
    return innermost, tuple(reversed(lines[:outermost]))


def stack_of(frame: FrameType | None) -> tuple[str, ...]:
    """All frames of a thread that are not Python's own or migpool's, or that were called by others; outermost first."""
    lines: list[str] = []
    while frame is not None:
        lines.append(f"{_place(frame.f_code.co_filename, frame.f_lineno)} {frame.f_code.co_name}")
        frame = frame.f_back
    foreign = [at for at, line in enumerate(lines) if not line.startswith(OURS)]
    return tuple(reversed(lines[: foreign[-1] + 1])) if foreign else ()


def _of_the_user(error: BaseException) -> bool:
    return isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread()


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
            line = _place(sys._getframe(1).f_code.co_filename, sys._getframe(1).f_lineno)
            where = f"{call.owner.name}: its {call.method} has called" if call else "something has called"
            told = origin(call.owner, call.method, line) if call else f" ({line})"
            tell(f"{where} os._exit({status}), which ends the process: raise a DeviceError instead{told}")
        really(status)

    os._exit = telling  # type: ignore[assignment]
    try:
        yield
    finally:
        os._exit = really
