"""A check of what devices leave when they are closed: threads, descriptors, processes."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from migpool.conformance.check import Failure
from migpool.conformance.devices.basics import ask, compare, move
from migpool.conformance.devices.calling import pairs_of
from migpool.conformance.devices.subject import Subject
from migpool.core.device_calls import stack_of
from migpool.core.plugin_errors import place_of
from migpool.device import Device

USES: Final = 3
SETTLED: Final = 1.0
"""Seconds in which what is about to end must have ended."""
SHOWN: Final = 3


def gives_back(subject: Subject) -> str:
    """Make devices, move their state and close them, again and again: no thread, descriptor or process may be left."""
    device = _use(subject)  # which may make what is made once
    before = _held()
    for _ in range(USES):
        _use(subject)
    deadline = time.monotonic() + SETTLED
    while (left := _more(before)) and time.monotonic() < deadline:
        time.sleep(0.01)
    if left:
        where = place_of(device, "close")
        raise Failure(f"{device.idstr}: {left} after {USES} uses of its devices: give them back in close{where}")
    return f"{USES} uses, nothing left of them"


def _use(subject: Subject) -> Device:
    with pairs_of(subject) as pairs:
        for source, destination in pairs:
            ask(source)
            move(source, destination)
        compare(pairs, "used again and again")
        for source, _ in pairs:
            source.abort()
            source.wake()
            source.resume()
        return pairs[0][0]


Held = Mapping[str, Mapping[int, str]]


def _held() -> Held:
    """What this process holds, by kind: each with a number that is its own, and what it is."""
    return {"thread": _threads(), "descriptor": _descriptors(), "process": _processes()}


def _more(before: Held) -> str:
    """What is held besides, in words; empty if nothing is."""
    found: list[str] = []
    for kind, now in _held().items():
        more = [what for number, what in now.items() if before[kind].get(number) != what]
        if len(now) > len(before[kind]):
            names = ", ".join(more[:SHOWN]) + (" and others" if more[SHOWN:] else "")
            count = len(now) - len(before[kind])
            found.append(f"{count} more {kind}{'s' * (count > 1)}{'es' * (kind == 'process' and count > 1)} ({names})")
    return " and ".join(found)


def _threads() -> dict[int, str]:
    frames = sys._current_frames()
    found = {}
    for thread in threading.enumerate():
        if thread.ident is not None:
            stack = stack_of(frames.get(thread.ident))
            found[thread.ident] = thread.name + (f" in {stack[-1]}" if stack else "")
    kernel = [int(entry.name) for entry in _entries("/proc/self/task")]
    known = {thread.native_id for thread in threading.enumerate()}
    return {**dict.fromkeys((number for number in kernel if number not in known), "not Python's"), **found}


def _descriptors() -> dict[int, str]:
    return {int(entry.name): target for entry in _entries("/proc/self/fd") if (target := _target(entry))}


def _processes() -> dict[int, str]:
    found: dict[int, str] = {}
    for task in _entries("/proc/self/task"):
        for child in _read(lambda task=task: task.joinpath("children").read_text()).split():  # type: ignore[misc]
            command = _read(lambda child=child: Path(f"/proc/{child}/cmdline").read_text())  # type: ignore[misc]
            found[int(child)] = " ".join(command.split("\0")).strip()[:80] or "ended, and not waited for"
    return found


def _entries(folder: str) -> list[Path]:
    """What is in a folder of the system's; nothing where there is no such folder."""
    try:
        return list(Path(folder).iterdir())
    except OSError:
        return []


def _target(entry: Path) -> str:
    return _read(lambda: str(entry.readlink()))


def _read(read: Callable[[], str]) -> str:
    try:
        return read()
    except OSError:
        return ""  # it has gone meanwhile
