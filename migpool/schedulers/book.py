"""The jobs that a threading model has accepted: which are open, where each stands, and whether any makes headway.

Guarantees:

1. A job is in the book from ``enter`` to ``strike``; one that is not in it, or has begun, is not begun.
2. ``stuck`` tells of an accepted job that no thread takes up while no other job gets on: within a part of the limit
   if nothing but the peer is waited for, and within the whole of it while a job is in an effect of a device, which may
   take its time. Where every job has begun, it is the peer that judges: it hears nothing any more.
3. Time in which nobody looks, since the process stood still, does not count.
"""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import Callable, Sequence

from migpool.core.effects import Brought, Credit, NextChunk
from migpool.core.interpreter import Job
from migpool.errors import PluginError, UsageError
from migpool.units import count_of

WAITING, CREDIT = 0.5, 0.75
"""The part of the limit that a job may stay without a thread while others wait for the peer; and while one of them
waits for credit. Then the destination, whose jobs are not begun or wait for chunks, is the first to say so; if all of
its jobs are begun it says, at 0.6 of the limit, that it hears nothing."""
GAP = 1.0
"""Seconds without a look, or four ticks, after which the time begins anew."""
NAMED = 4
"""How many jobs are named, of each kind."""


class Book:
    """Which jobs are open. ``limit``: seconds without headway."""

    def __init__(self, limit: float = 30.0) -> None:
        self.limit = limit
        self.closed = False
        self._changed = threading.Condition(threading.Lock())
        self._open: dict[Job, bool] = {}
        self._ended = 0
        self._seen: object = None
        self._since = self._looked = time.monotonic()

    @property
    def tick(self) -> float:
        """Seconds from one look to the next."""
        return min(0.5, self.limit / 8)

    @property
    def open(self) -> int:
        """How many jobs have not ended. Atomic, here and below: ``len`` of a dict, and ``in``."""
        return len(self._open)

    def enter(self, job: Job) -> None:
        """The job was accepted.

        Raises:
            UsageError: no job is any more.
        """
        with self._changed:
            if self.closed:
                raise UsageError(f"the threading model is closed and takes no job ({job.name})")
            self._open[job] = False

    def begin(self, job: Job) -> None:
        """A thread takes the job up.

        Raises:
            PluginError: it must not.
        """
        with self._changed:
            if job not in self._open:
                raise PluginError(f"it runs {_named(job)}, which it has not accepted: submit must call accept first")
            if self._open[job]:
                raise PluginError(f"it runs {_named(job)} a second time: each job is run once")
            self._open[job] = True

    def strike(self, job: Job) -> None:
        """The job has ended.

        Raises:
            PluginError: it was not open.
        """
        with self._changed:
            if self._open.pop(job, None) is None:
                raise PluginError(f"it ended {_named(job)}, which is not open: each job is accepted, and ends, once")
            self._ended += 1
            if not self._open:
                self._changed.notify_all()

    def knows(self, job: Job) -> bool:
        """Whether the job is open, or has been run to its end."""
        return job in self._open or inspect.getgeneratorstate(job.steps) == inspect.GEN_CLOSED

    def waits(self, job: Job) -> bool:
        """Whether the job is open and nobody has begun it."""
        return job in self._open and not job.begun

    def wait(self) -> bool:
        """Return when no job is open, or after a tick; whether none is."""
        with self._changed:
            if self._open:
                self._changed.wait(self.tick)
            return not self._open

    def wake(self) -> None:
        """Have whoever waits look again."""
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        """Enter no job any more."""
        with self._changed:
            self.closed = True

    def quiet(self, thrown: bool) -> float:
        """For how many seconds no job has made headway, and the switch was as ``thrown`` says."""
        now = time.monotonic()
        with self._changed:
            seen = (thrown, self._ended, [(job, job.begun, job.effect is None, job.since) for job in self._open])
            if seen != self._seen or now - self._looked > max(GAP, 4 * self.tick):
                self._seen, self._since = seen, now
            self._looked = now
            return now - self._since

    def stuck(self, quiet: float) -> bool:
        """Whether ``quiet`` seconds without headway are too many, while a job waits for the model."""
        jobs = self._jobs()
        begun = [job for job in jobs if _is_under_way(job)]
        if len(begun) == len(jobs):
            return False
        pending = [job.effect for job in begun]
        if not all(isinstance(effect, Brought) for effect in pending):
            return quiet >= self.limit
        return quiet >= self.limit * (CREDIT if any(isinstance(effect, Credit) for effect in pending) else WAITING)

    def standing(self) -> str:
        """Where each job stands, in words; empty if none is open."""
        jobs = self._jobs()
        if not jobs:
            return ""
        kinds = (
            ("", [job for job in jobs if _is_under_way(job)], _doing),
            ("accepted and never begun: ", [job for job in jobs if not job.begun], _named),
            ("run, and not reported as ended: ", [job for job in jobs if job.begun and job.effect is None], _named),
        )
        ended = f"{self._ended} of {count_of(self._ended + len(jobs), 'job')} ended"
        return "; ".join([ended, *(_listed(*kind) for kind in kinds if kind[1])])

    def _jobs(self) -> list[Job]:
        with self._changed:
            return list(self._open)


def _is_under_way(job: Job) -> bool:
    # By what it says itself. Its generator must not be asked while a thread is in it: without the interpreter lock one
    # that runs then seems not to have begun. Atomic: each read.
    return job.begun and job.effect is not None


def _named(job: Job) -> str:
    return f"{job.slot.name} ({job.name})" if job.slot else job.name


def _doing(job: Job) -> str:
    effect = job.effect
    if effect is None:
        return f"{_named(job)} has begun"
    seconds = (time.monotonic_ns() - job.since) / 1e9
    chunk = f" chunk {effect.index}" if effect.index >= 0 else ""
    if isinstance(effect, NextChunk):
        what = f"waits for{chunk}"
    elif isinstance(effect, Credit):
        what = f"waits for credit for{chunk}"
    else:
        what = f"is in its {effect.doing or effect.wait.name.lower().replace('_', ' ')}{chunk and ' of' + chunk}"
    elsewhere = f" of {effect.slot.name}" if effect.slot is not job.slot else ""
    return f"{_named(job)} {what}{elsewhere} for {seconds:.1f} s"


def _listed(heading: str, jobs: Sequence[Job], words: Callable[[Job], str]) -> str:
    more = f" and {len(jobs) - NAMED} more" if len(jobs) > NAMED else ""
    return heading + ", ".join(map(words, jobs[:NAMED])) + more
