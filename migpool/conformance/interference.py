"""Makes a chosen call of a device fail, or does something at a chosen wait of a migration."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from migpool.core.trace import Recorder, Tracer
from migpool.device import Device, DeviceError


class Tripwire(Tracer):
    """A tracer that does something when a number of waits are over.

    Arguments:
        at: the wait, counted from 0 over all threads; -1 for never.
        then: what to do; called on the thread that waited, once.
    """

    def __init__(self, at: int = -1, then: Callable[[], None] | None = None) -> None:
        super().__init__()
        self._at = at
        self._then = then
        self._count = itertools.count()

    def recorder(self) -> Recorder:
        """The calling thread's own recorder, with the wire in it."""
        record = super().recorder()

        def recording(span: bytes) -> None:
            record(span)
            if next(self._count) == self._at and self._then is not None:
                self._then()

        return recording


class Calls:
    """Counts a device's calls, and notices two at once.

    Attributes:
        of: how often each method was called.
        overlapping: the methods of two calls that ran at the same time; empty if none did.
    """

    def __init__(self, device: Device, *methods: str) -> None:
        self.of = dict.fromkeys(methods, 0)
        self.overlapping = ""
        self._inside = ""
        self._lock = threading.Lock()
        for method in methods:
            setattr(device, method, self._counted(method, getattr(device, method)))

    def _counted(self, method: str, call: Callable[..., object]) -> Callable[..., object]:
        def counting(*arguments: object) -> object:
            with self._lock:
                self.of[method] += 1
                if self._inside:
                    self.overlapping = f"{self._inside} and {method}"
                self._inside = method
            try:
                return call(*arguments)
            finally:
                with self._lock:
                    self._inside = ""

        return counting


@contextmanager
def failing(device: Device, method: str, number: int) -> Iterator[list[str]]:
    """Have one call of ``method`` fail instead of being carried out.

    Arguments:
        number: which call, from 0.

    Yields:
        A list that holds the error's text once it was raised.
    """
    call = getattr(device, method)
    counter = itertools.count()
    raised: list[str] = []

    def perhaps(*arguments: object) -> object:
        if next(counter) != number:
            return call(*arguments)
        raised.append(f"an error to order in {method}, call {number}")
        raise DeviceError(raised[0])

    setattr(device, method, perhaps)
    try:
        yield raised
    finally:
        delattr(device, method)
