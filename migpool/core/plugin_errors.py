"""Errors of plug-ins: each names the device, the method and the plug-in's line.

Guarantee: whatever a device's method raises becomes one :class:`~migpool.errors.DeviceError`, also what ends a thread
or a program elsewhere (``sys.exit``). Only a KeyboardInterrupt on the main thread, where Ctrl-C comes, is passed on.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from traceback import format_exception
from types import CodeType, TracebackType
from typing import Final, Protocol

from migpool.device import Device
from migpool.errors import BrokenDeviceError, DeviceError, MigpoolError


class Owner(Protocol):
    """Whose method is called: a :class:`~migpool.core.machine.Slot`, as a rule."""

    @property
    def name(self) -> str: ...
    @property
    def plugin(self) -> str: ...
    @property
    def device(self) -> object: ...


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


def _of_the_user(error: BaseException) -> bool:
    return isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread()


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


def raised_at(error: BaseException, device: object) -> str:
    """The line of a device's own code that an error came through, in brackets; empty if it came through none."""
    place = _place_of_error(error, files_of(device))
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
    return line_in(code.co_filename, code.co_firstlineno) if isinstance(code, CodeType) else ""


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


def line_in(filename: str, line: int | None) -> str:
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
            place = line_in(trace.tb_frame.f_code.co_filename, trace.tb_lineno)
        trace = trace.tb_next
    return place
