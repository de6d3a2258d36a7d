"""Submitter: one who waits in the line of a full ``WorkerPool``, a thread or a coroutine."""

from __future__ import annotations

import threading
from typing import Protocol

from migpool.workers.worker import Task


class Gate(Protocol):
    """What a submitter waits at."""

    def release(self) -> None:
        """Let it go on; called once, under the dispatcher's lock."""


class Submitter:
    """A blocked submitter: its task, whether that was admitted to the queue, and the gate it waits at.

    Who serves the line writes ``admitted`` and then releases the gate, which is also released for a refusal.

    Arguments:
        task: what it submits.
        gate: ``None`` for one at which a thread waits, with :meth:`wait`.
    """

    __slots__ = ("_lock", "admitted", "gate", "task")

    def __init__(self, task: Task, gate: Gate | None = None) -> None:
        self.task = task
        self.admitted = False
        self._lock = threading.Lock()
        self._lock.acquire()
        self.gate: Gate = gate or self._lock

    def wait(self, seconds: float | None) -> None:
        """Until served or refused, or until ``seconds`` have passed; None: without a limit."""
        self._lock.acquire(timeout=-1 if seconds is None else min(seconds, threading.TIMEOUT_MAX))


class LoopGate:
    """Where a coroutine waits, in the event loop that runs now.

    Attributes:
        opened: done once the gate was released.
    """

    def __init__(self) -> None:
        import asyncio  # which a program without a loop need not pay for

        self._loop = asyncio.get_running_loop()
        self.opened = self._loop.create_future()

    def release(self) -> None:
        """Wake the coroutine, from any thread."""
        try:
            self._loop.call_soon_threadsafe(self._open)
        except RuntimeError:  # the loop was closed: nobody waits in it any more
            pass

    def _open(self) -> None:
        if not self.opened.done():  # else the coroutine was cancelled
            self.opened.set_result(None)
