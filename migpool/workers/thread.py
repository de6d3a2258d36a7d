"""WorkerThread: a thread whose start does not wait for it, and which can be joined before it is started.

``Thread.start`` returns only when the new thread runs Python code, and for that it must be given the interpreter lock.
Where other threads compute, that takes up to a switch interval of 5 ms, and as much again until the starter goes on.

Here the starter goes on at once. Otherwise ``start`` keeps its word: when it returns, the kernel has the thread; if
none can be had, it raises.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

_LIMBO: dict[threading.Thread, threading.Thread] = getattr(threading, "_limbo", {})
"""The standard library's threads that are being started. One whose start a signal handler interrupts stays there."""


class _Begun(threading.Event):
    """What ``Thread.start`` waits for, last of all; here that is left to who joins."""

    def wait(self, timeout: float | None = None) -> bool:
        del timeout
        return True


class WorkerThread(threading.Thread):
    """A thread that is started by the thread that made it, or given up.

    Arguments:
        target: what it does.
        name: its name.
    """

    def __init__(self, target: Callable[[], object], name: str) -> None:
        super().__init__(target=target, name=name)
        # The standard library's own, of the same name from 3.11 to 3.14; with any other, ``start`` just waits.
        self._started = _Begun()
        self._maker = threading.get_ident()
        self._made = True  # and not yet started
        self._given_up = False
        self._entry = threading.Lock()
        self._entered = False

    def start(self) -> None:
        """Have the thread begin, and do not wait for it.

        Raises:
            RuntimeError: no thread can be had.
        """
        super().start()
        self._made = False

    def give_up(self) -> None:
        """It was not started, or not with success; nobody is to wait for it."""
        self._given_up = True
        self._started.set()
        with self._entry:
            if not self._entered:
                _LIMBO.pop(self, None)

    def _bootstrap_inner(self) -> None:
        # The kernel has the thread although it was given up: then it leaves the list of those being started by itself.
        with self._entry:
            self._entered = True
            _LIMBO.setdefault(self, self)
        super()._bootstrap_inner()  # type: ignore[misc] # the standard library's own, of the same name from 3.11 to 3.15

    def run(self) -> None:
        """What the thread does."""
        self._started.set()
        super().run()

    def join(self, timeout: float | None = None) -> None:
        """Wait for the end, and first for the start; but not in a signal handler that struck in the middle of that."""
        if self._made and self._maker == threading.get_ident():
            return
        if threading.Event.wait(self._started, timeout) and not self._given_up:
            super().join(timeout)

    @property
    def ended(self) -> bool:
        """Whether it has been started and is no more."""
        return self._started.is_set() and not self.is_alive()
