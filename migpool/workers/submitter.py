"""Submitter: one who waits in the line of a full ``WorkerPool``."""

from __future__ import annotations

import threading

from migpool.workers.worker import Task


class Submitter:
    """A blocked submitter: its task, whether that was admitted to the queue, and the gate it waits at.

    Who serves the line writes ``admitted`` and then releases the gate, which is also released for a refusal.
    """

    __slots__ = ("admitted", "gate", "task")

    def __init__(self, task: Task) -> None:
        self.task = task
        self.admitted = False
        self.gate = threading.Lock()
        self.gate.acquire()

    def wait(self, seconds: float | None) -> None:
        """Until served or refused, or until ``seconds`` have passed; None: without a limit."""
        self.gate.acquire(timeout=-1 if seconds is None else min(seconds, threading.TIMEOUT_MAX))
