"""The contract of a threading model: who runs a job, and who waits.

The migration makes one scheduler for its side and calls, from one thread of its own::

    setup(setup)  ->  submit(job) ...  ->  drain()  ->  close()

``submit`` may also be called by a job that runs, from whatever thread that is. ``cancel`` may come from any thread at
any time.

What a model must keep, and the conformance suite (``tests/conformance``) checks for each registered one:

1. Every submitted job runs once, from its first effect to its last, unless the migration is cancelled before.
2. Effects of one job never run at the same time, and each sees what the one before wrote.
3. No job waits for ever on another: with jobs submitted in the same order at both ends, all of them end.
4. The first error of any job throws the switch, so that the other jobs end at their next wait; ``drain`` raises it.
5. ``drain`` returns when every job has ended, and at once if there is none; a job that a job submitted counts.
6. ``submit`` after ``cancel``, after an error or after ``close`` does not run the job; after ``close`` it raises
   :class:`~migpool.errors.UsageError`.
7. After ``close`` no thread of the model is left.

A model derives from :class:`Scheduler`, which keeps the book of jobs and errors, and implements ``submit`` by calling
``self.accept(job)``, then having some thread call ``self.run(job)``. It knows neither the wire nor what a job does. A
model that decides effect by effect has a loop of its own instead, around the interpreter's ``perform`` and
``try_perform``, and strikes the job from the book with ``self.ended``.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from migpool.core.cancel import CancelSwitch
from migpool.core.interpreter import Interpreter, Job
from migpool.core.machine import Slot
from migpool.core.threads import ThreadGroup
from migpool.device import Side
from migpool.errors import Cancelled, UsageError

__all__ = ["Scheduler", "Setup"]


@dataclass(frozen=True, slots=True)
class Setup:
    """What a model is told before the first job.

    Arguments:
        side: which end it works for.
        devices: the memory and the iterable devices: each of these will have one job that waits on it, the memory
            several.
        channels: how many multifd channels there are.
        interpreter: runs jobs.
        threads: starts, counts and joins threads.
        switch: thrown on the first error.
        workers: the number of threads that the user asked for, ``None`` to leave it to the model.
    """

    side: Side
    devices: Sequence[Slot]
    channels: int
    interpreter: Interpreter
    threads: ThreadGroup
    switch: CancelSwitch
    workers: int | None = None


class Scheduler(ABC):
    """A threading model for one side of one migration; see the top of this file.

    Attributes:
        sides: where the model can be used.
        takes_workers: whether ``name:N`` on the command line means something to it.
        choices: the words that may follow its name (``name:word``), in groups of those that exclude each other.
        chosen: those words that do; set before ``setup``.
    """

    sides: ClassVar[frozenset[Side]] = frozenset({"source", "destination"})
    takes_workers: ClassVar[bool] = False
    choices: ClassVar[tuple[tuple[str, ...], ...]] = ()
    chosen: frozenset[str] = frozenset()

    def __init__(self) -> None:
        self._book = threading.Condition(threading.Lock())
        self._open = 0
        self._closed = False
        self._error: BaseException | None = None
        self._spawned: list[threading.Thread] = []

    def setup(self, setup: Setup) -> None:
        """Prepare; threads that are made here are ready before the first byte of state."""
        self.interpreter = setup.interpreter
        self.switch = setup.switch
        self.threads = setup.threads

    @abstractmethod
    def submit(self, job: Job) -> None:
        """Have ``job`` run. May block, if that is the model's way."""

    def drain(self) -> None:
        """Wait until every job has ended.

        Raises:
            MigpoolError: the first error of a job, or the reason why the migration was cancelled.
        """
        with self._book:
            while self._open:
                self._book.wait()
            error = self._error
        if error is not None:
            raise error
        if self.switch.thrown:
            raise self.switch.reason or Cancelled("the migration was cancelled")

    def remarks(self) -> Sequence[str]:
        """What a reader of the report should know of how the model went to work, a sentence each.

        May be asked before ``setup``.
        """
        return ()

    @property
    def busy(self) -> bool:
        """Whether a job has not ended yet."""
        return self._open > 0

    def cancel(self) -> None:
        """End every job at its next wait. Does not wait for them."""
        self.switch.cancel()

    def close(self) -> None:
        """Take no more jobs, and wait for the model's threads to end. The jobs must have ended, or be cancelled.

        Raises:
            TimeLimitExceeded: a thread does not end; a device that ignores ``abort`` holds it.
        """
        with self._book:
            self._closed = True
        self.release()
        self.threads.join(self._spawned)

    # ------------------------------------------------------------------ for models

    def release(self) -> None:
        """Let the model's threads end. Called once by ``close``."""
        return

    def spawn(self, name: str, body: Callable[[], None]) -> None:
        """Start a thread of the model's own; ``close`` waits for it after ``release``."""
        self._spawned.append(self.threads.start(name, body))

    def accept(self, job: Job) -> bool:
        """Enter ``job`` in the book. Returns whether it should run; a job that should not has been ended here.

        Raises:
            UsageError: the scheduler is closed.
        """
        with self._book:
            if self._closed:
                raise UsageError(f"the threading model is closed and takes no job ({job.name})")
            self._open += 1
        if self.switch.thrown:
            job.steps.close()
            self.ended(None)
            return False
        return True

    def run(self, job: Job) -> None:
        """Run an accepted job to its end on the calling thread. Never raises."""
        try:
            self.interpreter.run(job)
        except BaseException as error:  # noqa: BLE001 -- it reaches the caller through drain
            self.ended(error)
        else:
            self.ended(None)

    def ended(self, error: BaseException | None) -> None:
        """Strike a job from the book; ``error`` is what it ended with."""
        if error is not None:
            self._fail(error)
        with self._book:
            self._open -= 1
            if not self._open:
                self._book.notify_all()

    def _fail(self, error: BaseException) -> None:
        # A job that was ended by the switch is a consequence: the reason the switch was thrown for is the error.
        self.switch.cancel(error)
        with self._book:
            if self._error is None:
                self._error = self.switch.reason
