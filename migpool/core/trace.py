"""Spans: who waited for what, from when to when, on which thread. Recorded without a lock.

Guarantees:

1. A record costs no lock and leaves no object behind: every thread has an array of its own, to which a span is appended
   as 40 packed bytes (the decision "Spans are packed into bytes and appended"). Atomic by the interpreter lock: the
   append, and the copy that a reader makes. Without that lock it is a list of them, whose ``append`` and copy are
   atomic all the same.
2. Spans of one thread are in the order of their ends.
3. Times are CLOCK_MONOTONIC in nanoseconds: one clock for all processes of a host.
4. Reading the spans while threads still record gives every span that had ended before the call.
"""

from __future__ import annotations

import sys
import threading
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from struct import Struct
from typing import Final, TypeAlias

from migpool.core.effects import Wait

_SPAN: Final = Struct("=5q")

pack_span = _SPAN.pack
"""One span for a recorder: kind of wait, slot number or -1, chunk index or -1, begin, end; times in nanoseconds."""

UNLOCKED: Final = not getattr(sys, "_is_gil_enabled", lambda: True)()
"""Whether this Python runs without the interpreter lock."""

Recorder: TypeAlias = Callable[[bytes], None]
"""Takes one span, as ``pack_span`` makes it."""


@dataclass(frozen=True, slots=True)
class Span:
    """One wait.

    Attributes:
        wait: what was waited for.
        slot: the number of the device's slot, -1 for none.
        index: the chunk, -1 for none.
        begin: CLOCK_MONOTONIC in nanoseconds.
        end: the same, not before ``begin``.
        thread: the thread's name, or the job's that ran there.
    """

    wait: Wait
    slot: int
    index: int
    begin: int
    end: int
    thread: str

    @property
    def duration(self) -> int:
        """Nanoseconds."""
        return self.end - self.begin


def _store() -> tuple[Recorder, Callable[[], bytes]]:
    """Where a thread's spans go, and how all of them are read."""
    spans: array[int] = array("q")
    return spans.frombytes, spans.tobytes


def _unlocked_store() -> tuple[Recorder, Callable[[], bytes]]:
    """The same where an array must not be read while it grows."""
    spans: list[bytes] = []
    return spans.append, lambda: b"".join(spans.copy())


class Tracer:
    """Collects the spans of one migration in one process."""

    def __init__(self) -> None:
        self._local = threading.local()
        self._lock = threading.Lock()
        self._tracks: list[tuple[str, Callable[[], bytes]]] = []

    def recorder(self) -> Recorder:
        """The calling thread's own recorder. Keep it in a loop; it must not be handed to another thread."""
        try:
            recorder: Recorder = self._local.recorder
        except AttributeError:
            recorder, read = _unlocked_store() if UNLOCKED else _store()
            with self._lock:
                self._tracks.append((self._unused(threading.current_thread().name), read))
            self._local.recorder = recorder
        return recorder

    def _unused(self, name: str) -> str:
        """The name, with a number if another thread has it already: a track is one thread's."""
        taken = {track for track, _ in self._tracks}
        number = 1
        unused = name
        while unused in taken:
            number += 1
            unused = f"{name} ({number})"
        return unused

    def record(self, wait: Wait, slot: int, index: int, begin: int, end: int | None = None) -> None:
        """Record one span outside of the data path; it ends now unless ``end`` says otherwise."""
        self.recorder()(pack_span(wait, slot, index, begin, time.monotonic_ns() if end is None else end))

    def spans(self) -> list[Span]:
        """Every span so far, in the order of their begins."""
        with self._lock:
            tracks = list(self._tracks)
        found = [
            Span(Wait(wait), slot, index, begin, end, thread)
            for thread, read in tracks
            for wait, slot, index, begin, end in _SPAN.iter_unpack(read())
        ]
        found.sort(key=lambda span: (span.begin, span.end))
        return found
