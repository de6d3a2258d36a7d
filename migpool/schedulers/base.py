"""The contract of a threading model: who runs a job, and who waits.

The migration makes one scheduler for its side and calls, from one thread of its own::

    begin(setup)  ->  take(job) ...  ->  drain()  ->  close()

``take`` may also be called by a job that runs, from whatever thread that is. ``cancel`` may come from any thread at
any time. These four are written here; they call the model's own ``setup``, ``submit`` and ``release``.

What a model must keep; ``migpool conformance --model NAME`` checks it:

1. Every submitted job runs once, from its first effect to its last, unless the migration is cancelled before.
2. Effects of one job never run at the same time, and each sees what the one before wrote.
3. No job waits for ever on another: with jobs submitted in the same order at both ends, all of them end.
4. The first error of any job throws the switch, so that the other jobs end at their next wait; ``drain`` raises it.
5. ``drain`` returns when every job has ended, and at once if there is none; a job that a job submitted counts.
6. ``submit`` after ``cancel``, after an error or after ``close`` does not run the job; after ``close`` it raises
   :class:`~migpool.errors.UsageError`.
7. After ``close`` no thread of the model is left. It starts threads by ``spawn`` and ``pool`` alone, so that they are
   counted and joined with all others.
8. A device that ignores ``abort`` can hold its thread, and nobody else: once the migration is cancelled, ``drain`` and
   ``close`` end within the limit, and ``close`` says what is held and where.

A model derives from :class:`Scheduler`, which keeps the book of jobs and errors, and implements ``submit`` by calling
``self.accept(job)``, then having some thread call ``self.run(job)``. It knows neither the wire nor what a job does. A
model that decides effect by effect has a loop of its own instead, around the interpreter's ``perform`` and
``try_perform``, and strikes the job from the book with ``self.ended``.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal, TypeAlias

from migpool.core.cancel import CancelSwitch
from migpool.core.interpreter import Interpreter, Job
from migpool.core.machine import Slot
from migpool.core.threads import ThreadGroup
from migpool.device import Side
from migpool.errors import Cancelled, MigpoolError, PluginError, TimeLimitExceeded
from migpool.schedulers.book import Book
from migpool.workers.pool import WorkerPool

LAST_MOMENT = 1.0
"""Seconds that ``close`` leaves the threads that nothing holds, once it has waited for the one that is held."""


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
        limit: seconds for which jobs may make no headway.
    """

    side: Side
    devices: Sequence[Slot]
    channels: int
    interpreter: Interpreter
    threads: ThreadGroup
    switch: CancelSwitch
    workers: int | None = None
    limit: float = 30.0

    @property
    def workers_or_default(self) -> int:
        """The number of threads that the user asked for, else the smaller of the numbers of channels and of devices."""
        return default_workers(self.workers, self.channels, len(self.devices))


Taking: TypeAlias = Literal["queue", "block", "run", "apart", "receive"]
"""How jobs are taken: into a queue; by a submitter that blocks until a thread is free, or runs them itself; effect by
effect, so that a thread is kept only while a device works or a channel takes bytes; or by the channel's own thread that
has received what the job waits for, which reads nothing else meanwhile."""


@dataclass(frozen=True, slots=True)
class Staffing:
    """How a model goes to work, as the simulator needs to know it.

    Arguments:
        threads: jobs that it has under way at once; with "apart", devices and channels that are served at once.
        taking: how it takes jobs.
    """

    threads: int
    taking: Taking = "queue"


ANY_NUMBER = 1 << 16
"""Of threads, where the model has no bound of its own."""


def default_workers(workers: int | None, channels: int, devices: int) -> int:
    """The number of threads that the user asked for, else the smaller of the numbers of channels and of devices."""
    return workers or max(1, min(channels, devices))


class Scheduler(ABC):
    """A threading model for one side of one migration; see the top of this file.

    Attributes:
        sides: where the model can be used.
        takes_workers: whether ``name:N`` on the command line means something to it.
        choices: the words that may follow its name (``name:word``), in groups of those that exclude each other.
        chosen: those words that do; set before ``setup``.
        name: what the command line calls it.
    """

    sides: ClassVar[frozenset[Side]] = frozenset({"source", "destination"})
    takes_workers: ClassVar[bool] = False
    choices: ClassVar[tuple[tuple[str, ...], ...]] = ()
    chosen: frozenset[str] = frozenset()
    name: str = ""

    _book: Book
    _own: ThreadGroup
    _ready = False

    # ------------------------------------------------------------------ for models: what each has of its own

    def setup(self, setup: Setup) -> None:
        """Prepare; threads that are made here are ready before the first byte of state."""
        self.interpreter = setup.interpreter
        self.switch = setup.switch
        self.threads = setup.threads
        self._own = setup.threads.part()
        self._book = Book(setup.limit)
        self._pools: list[WorkerPool] = []
        self._where = f"threading model {self.name or type(self).__name__!r} at the {setup.side}"
        self._error: BaseException | None = None
        self._given_up = False
        self._hint = ""
        self._ready = True

    @abstractmethod
    def submit(self, job: Job) -> None:
        """Have ``job`` run. May block, if that is the model's way."""

    def release(self) -> None:
        """Let the model's threads end; those of its pools end by themselves. Called once by ``close``."""
        return

    def remarks(self) -> Sequence[str]:
        """What a reader of the report should know of how the model went to work, a sentence each.

        May be asked before ``setup``.
        """
        return ()

    def staffing(self, workers: int | None, channels: int, devices: int) -> Staffing | None:
        """How the model goes to work, for the simulator; ``None``, which this returns, if it cannot be simulated.

        Asked without ``setup``; the arguments are those of :class:`Setup`, with the number of devices.
        """
        del workers, channels, devices
        return None

    # ------------------------------------------------------------------ for models: what they do it with

    def spawn(self, name: str, body: Callable[[], None]) -> None:
        """Start a thread of the model's own; ``close`` waits for it after ``release``."""
        self._own.start(name, body)

    def pool(self, workers: int, name: str, *, max_pending: int | None = None) -> WorkerPool:
        """A pool whose threads are the model's own; ``close`` ends it after ``release``, and so does a cancel.

        Arguments:
            workers: at most this many threads, made on demand and kept.
            name: what they are called, with a number.
            max_pending: at most this many jobs wait for a worker, then submitting blocks; ``None``: no bound.
        """
        pool = WorkerPool(workers, name, max_pending=max_pending, idle_timeout=None, thread=self._own.thread)
        self._pools.append(pool)
        # Also for who is blocked in its ``submit``, since every worker is held by a device.
        self.switch.on_cancel(partial(pool.shutdown, wait=False))
        return pool

    def accept(self, job: Job) -> bool:
        """Enter ``job`` in the book. Returns whether it should run; a job that should not has been ended here.

        Raises:
            UsageError: the scheduler is closed.
        """
        self._book.enter(job)
        if self.switch.thrown:
            job.steps.close()
            self.ended(job, None)
            return False
        return True

    def run(self, job: Job) -> None:
        """Run an accepted job to its end on the calling thread. Never raises."""
        try:
            self._book.begin(job)
        except PluginError as error:
            self._fail(self._blamed(str(error)))
            return
        try:
            self.interpreter.run(job)
        except BaseException as error:  # noqa: BLE001 -- it reaches the caller through drain
            self.ended(job, error)
        else:
            self.ended(job, None)

    def ended(self, job: Job, error: BaseException | None) -> None:
        """Strike a job from the book; ``error`` is what it ended with."""
        if error is not None:
            self._fail(error)
        try:
            self._book.strike(job)
        except PluginError as wrong:
            self._fail(self._blamed(str(wrong)))

    # ------------------------------------------------------------------ for the migration

    def begin(self, setup: Setup) -> None:
        """Set the model up.

        Raises:
            PluginError: it fails, or does not keep to the contract.
        """
        with self._blaming("setup"):
            self.setup(setup)
        if not self._ready:
            raise PluginError(
                f"threading model {self.name or type(self).__name__!r}: its setup does not call super().setup(setup)"
            )

    def take(self, job: Job) -> None:
        """Have the model run ``job``; from a job, too.

        Raises:
            PluginError: the model fails, or does not keep to the contract.
            UsageError: the scheduler is closed.
        """
        try:
            with self._blaming("submit"):
                self.submit(job)
        except PluginError:
            if self._book.waits(job):
                job.steps.close()
                self.ended(job, None)
            if self.switch.thrown:
                return  # that is how a pool refuses who waits for a worker
            raise
        if not self._book.knows(job):
            raise self._blamed("submit has not called self.accept(job)")

    def drain(self) -> None:
        """Wait until every job has ended.

        Raises:
            MigpoolError: the first error of a job, or the reason why the migration was cancelled.
            TimeLimitExceeded: jobs were accepted that nobody begins.
        """
        while not self._book.wait() and not self._given_up:
            self.look()
        if self._error is not None:
            raise self._error
        if self.switch.thrown:
            raise self.switch.reason or Cancelled("the migration was cancelled")

    def look(self) -> None:
        """Throw the switch if a job was accepted that nobody begins, and none makes headway.

        ``drain`` looks; so does, every now and then, who waits for the peer meanwhile.
        """
        if not self._ready or self._given_up:
            return
        book = self._book
        quiet = book.quiet(self.switch.thrown)
        if self.switch.thrown:
            self._given_up = quiet >= book.limit
        elif book.stuck(quiet):
            self._given_up, self._hint = True, ""
            self._fail(TimeLimitExceeded(f"{self._where}: no headway for {quiet:.1f} s; {book.standing()}"))
            book.wake()
        else:
            self._hint = f"{self._where}: {book.standing()}" if book.stuck(2 * quiet) else ""

    @property
    def hint(self) -> str:
        """What to add to an error of the peer's: where the jobs stood, if some had not been begun for long."""
        return self._hint if self._ready else ""

    def standing(self) -> str:
        """Where each open job stands, in words; empty if there is none."""
        return self._book.standing() if self._ready else ""

    @property
    def busy(self) -> bool:
        """Whether a job has not ended yet."""
        return self._ready and self._book.open > 0

    def cancel(self) -> None:
        """End every job at its next wait. Does not wait for them."""
        self.switch.cancel()

    def close(self) -> None:
        """Take no more jobs, and wait for the model's threads to end. The jobs must have ended, or be cancelled.

        Raises:
            TimeLimitExceeded: a thread does not end; a device that ignores ``abort`` holds it.
            PluginError: the model fails.
        """
        if not self._ready:
            return
        self._book.close()
        with contextlib.ExitStack() as stack:
            stack.callback(self._join)
            for pool in self._pools:
                stack.callback(pool.shutdown, wait=False)
            if self._jobs_end():
                with self._blaming("release"):
                    self.release()
            else:
                # What is held by a device may hold the model's own way of waiting, too.
                self.spawn("release", self._release_alone)

    # ------------------------------------------------------------------ steps of the above

    def _jobs_end(self) -> bool:
        """Wait for the open jobs as long as they make headway; whether they have ended."""
        book = self._book
        while not book.wait() and not self._given_up:
            self._given_up = book.quiet(self.switch.thrown) >= book.limit
        return not book.open

    def _release_alone(self) -> None:
        try:
            self.release()
        except Exception as error:  # noqa: BLE001 -- told, if nothing else was
            self._fail(self._blamed(f"release raised {type(error).__name__}: {error}"))

    def _join(self) -> None:
        try:
            self._own.close(min(LAST_MOMENT, self._book.limit) if self._given_up else None)
        except TimeLimitExceeded as error:
            told = filter(None, (f"{self._where}: {error}", self.standing()))
            raise TimeLimitExceeded("; ".join(told)) from None

    def _fail(self, error: BaseException) -> None:
        # A job that was ended by the switch is a consequence: the reason the switch was thrown for is the error.
        self.switch.cancel(error)
        if self._error is None:
            self._error = self.switch.reason

    @contextlib.contextmanager
    def _blaming(self, call: str) -> Iterator[None]:
        """What the model raises becomes an error that names it."""
        try:
            yield
        except MigpoolError:
            raise
        except Exception as error:
            raise self._blamed(f"{call} raised {type(error).__name__}: {error}") from error

    def _blamed(self, what: str) -> PluginError:
        where = self._where if self._ready else f"threading model {self.name or type(self).__name__!r}"
        return PluginError(f"{where}: {what}")
