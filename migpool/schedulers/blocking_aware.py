"""``blocking-aware``: a pool that adds a worker only while fewer workers than CPUs are runnable.

A job that blocks costs no processor, so another worker may take up the next job; a job that computes would only be
slowed down by it. ``blocking-aware:N`` sets a limit. Peter Xu named such a rule on qemu-devel, among what a pool must
do before it can replace a thread a device (``docs/architecture.md`` cites the thread).

What counts as blocking: a worker that is inside

* ``NextChunk``, ``Credit``, ``Turn`` or ``AfterOthers``: migpool's own waits, in which nothing is computed;
* ``ReadState``, ``WriteState``, ``Send``, ``SaveConfig`` or ``LoadConfig`` (the wait for the big lock included), in
  which a device or the kernel may block as well as compute: if the thread has used less than half of its fair share of
  a CPU, in turns with as many others as there are CPUs, over its last whole window of half a millisecond or more, and
  no more than that in the one that has begun; and ``Send`` for as many workers only as there are channels, since one
  more would wait for a channel, too,

and that is neither on a CPU nor waits for one, by the kernel's word. A worker that was just made counts as runnable
until its first window is over.

While a job waits and no worker is idle, one thread looks at the workers every half millisecond, or every four if
nothing changes, and adds as many as are missing. If every worker blocks, it doubles them. When no job waits, it sleeps.

Guarantees:

1. Jobs begin in the order of ``submit``. ``submit`` never blocks.
2. Below the limit a job waits only for jobs that compute or send: when all workers block, for however long, it is
   begun after a few windows.
3. While jobs compute and none of them blocks, there are no more workers than CPUs.

A job without credit counts as blocking, and gets workers: the decision "Under blocking-aware, a wait for credit counts
as blocking" says what that costs where the destination computes. How often the workers are looked at: the decision
"blocking-aware looks at its workers every half millisecond".
"""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from time import monotonic_ns

from migpool.core.effects import (
    READS,
    SENDS,
    WRITES,
    AfterOthers,
    Credit,
    Effect,
    LoadConfig,
    NextChunk,
    NextPart,
    SaveConfig,
    Turn,
)
from migpool.core.interpreter import Job
from migpool.core.thread_state import ThreadState
from migpool.schedulers.base import ANY_NUMBER, Scheduler, Setup, Staffing

WAITS: frozenset[type[Effect[object]]] = frozenset({NextChunk, NextPart, Credit, Turn, AfterOthers})
MAY_BLOCK = WAITS | {*READS, *WRITES, *SENDS, SaveConfig, LoadConfig}

WINDOW = 500_000
"""Nanoseconds over which a worker's processor time is judged, at least."""
SHORTEST_LOOK, LONGEST_LOOK = 0.0005, 0.004
"""Seconds from one look at the workers to the next."""


class Worker:
    """What is known of one thread of the pool, to tell whether it blocks.

    Attributes:
        inside: the effect that its job is in, if that may block; set by itself, without a lock. Atomic: each read and
            write.
    """

    __slots__ = ("_computed", "_idled", "_since", "_thread", "inside")

    def __init__(self) -> None:
        self.inside: Effect[object] | None = None
        self._thread: ThreadState | None = None
        self._idled = False
        self._computed = 0
        self._since = 0

    def begin(self) -> None:
        """On the thread itself."""
        thread = ThreadState()
        self._computed = thread.computed()
        self._since = monotonic_ns()
        self._thread = thread

    def blocks_in(self, window: int, share: float) -> type[Effect[object]] | None:
        """In what it blocks, ``None`` if it does not; see the top of this file.

        Arguments:
            window: nanoseconds over which a call is judged, at least.
            share: of a CPU; who uses less does not compute.
        """
        thread, effect = self._thread, self.inside
        if thread is None or effect is None:
            return None
        now, computed = monotonic_ns(), thread.computed()
        elapsed = now - self._since
        used = computed - self._computed
        if elapsed >= window:
            self._since, self._computed, self._idled = now, computed, used < share * elapsed
        # Between its windows a worker is what the last one said. Were it runnable until the next has passed, workers
        # that began at different moments would never be seen to block all at once, and a job could wait for ever.
        idle = effect.__class__ in WAITS or (self._idled and used < share * max(elapsed, window))
        return effect.__class__ if idle and not thread.runnable() else None


class BlockingAwareScheduler(Scheduler):
    """A pool that adds a worker only while fewer workers than CPUs are runnable, the others being inside a wait."""

    takes_workers = True

    def setup(self, setup: Setup) -> None:
        """Start the thread that watches the workers; those are made when jobs come."""
        super().setup(setup)
        self._name = f"{setup.side}-worker"
        self._limit = setup.workers or ANY_NUMBER
        self._channels = setup.channels
        self._cpus = len(os.sched_getaffinity(0))
        self._lock = threading.Lock()
        self._job_waits = threading.Condition(self._lock)
        self._worker_lacks = threading.Condition(self._lock)
        self._jobs: deque[Job] = deque()
        self._workers: list[Worker] = []
        self._idle = self._coming = 0  # the latter were made, and have not come to the queue yet
        self._ending = False
        self.spawn(f"{setup.side}-workers-watch", self._look_after)

    def submit(self, job: Job) -> None:
        """Give ``job`` to an idle worker, or queue it until there is one. Never blocks."""
        if not self.accept(job):
            return
        with self._lock:
            self._jobs.append(job)
            if len(self._jobs) <= self._idle + self._coming:
                self._job_waits.notify()
            elif len(self._workers) < min(self._cpus, self._limit):
                self._add()
            elif len(self._workers) < self._limit:
                self._worker_lacks.notify()

    def staffing(self, workers: int | None, channels: int, devices: int) -> Staffing:
        """As if every job blocked, and a worker were there for each at once: how it grows is not simulated."""
        del channels, devices
        return Staffing(workers or ANY_NUMBER)

    def release(self) -> None:
        """Let the workers end after the jobs that they have."""
        with self._lock:
            self._ending = True
            self._job_waits.notify_all()
            self._worker_lacks.notify_all()

    # ------------------------------------------------------------------ on a worker

    def _work(self, worker: Worker) -> None:
        worker.begin()
        job = self._next(first=True)
        while job is not None:
            try:
                self._perform(job, worker)
            except BaseException as error:  # noqa: BLE001 -- it reaches the caller through drain
                self.ended(job, error)
            else:
                self.ended(job, None)
            job = self._next()

    def _perform(self, job: Job, worker: Worker) -> None:
        """Perform all of a job, and say meanwhile what the worker is inside of."""
        perform = self.interpreter.perform
        effect = self.interpreter.begin(job)
        try:
            while effect is not None:
                worker.inside = effect if effect.__class__ in MAY_BLOCK else None
                effect = perform(job, effect)
        finally:
            worker.inside = None

    def _next(self, *, first: bool = False) -> Job | None:
        with self._lock:
            self._coming -= first
            self._idle += 1
            while not self._jobs:
                if self._ending:
                    return None
                self._job_waits.wait()
            self._idle -= 1
            return self._jobs.popleft()

    # ------------------------------------------------------------------ on the watching thread

    def _look_after(self) -> None:
        pause = SHORTEST_LOOK
        with self._lock:
            while not self._ending:
                if not self._lacking():
                    pause = SHORTEST_LOOK
                    self._worker_lacks.wait()
                    continue
                self._worker_lacks.wait(pause)
                if self._ending or not self._lacking():
                    continue
                try:
                    pause = SHORTEST_LOOK if self._add_missing() else min(2 * pause, LONGEST_LOOK)
                except RuntimeError as error:  # no thread can be had
                    self._fail(error)
                    return

    def _lacking(self) -> bool:
        return len(self._jobs) > self._idle + self._coming and len(self._workers) < self._limit

    def _add_missing(self) -> bool:
        # A thread that waits for the interpreter's lock computes in its turns: with as many turns as there are CPUs,
        # and half of that to be safe, it still counts as runnable. A turn is a switch interval.
        window = max(WINDOW, int(2e9 * self._cpus * sys.getswitchinterval()))
        share = 1 / (2 * self._cpus)
        waits = [wait for worker in self._workers if (wait := worker.blocks_in(window, share)) is not None]
        blocked = len(waits) - max(0, sum(wait in SENDS for wait in waits) - self._channels)
        runnable = len(self._workers) - self._idle - blocked
        missing = self._cpus - runnable if runnable else max(self._cpus, len(self._workers))
        missing = min(missing, len(self._jobs) - self._idle - self._coming, self._limit - len(self._workers))
        for _ in range(missing):
            self._add()
        return missing > 0

    def _add(self) -> None:
        worker = Worker()
        self.spawn(f"{self._name}-{len(self._workers)}", lambda: self._work(worker))
        self._workers.append(worker)
        self._coming += 1
