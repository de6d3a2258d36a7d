"""``receiver``: no load threads. The thread that received a device's next chunk loads it.

For loading only; ``pool+receiver`` on the command line saves with a pool and loads like this. The number of channels is
the bound on threads, and they are there anyway; beside them there is one thread for all that needs the big lock, which
can only be done one after the other.

A load job here has no thread while it waits for a chunk. Whoever brings a chunk of the device carries the job on from
there and drains what waits behind it; but if that has taken some time (``LEAVE_AFTER``), because the device
blocks, it leaves the rest to the next one that is sure to come: while a receiver loads, other devices' chunks stand
unread on its channel. When the job comes to its config, the thread for the big lock has it. What
each of the two is worth: the decision "Under receiver, a thread leaves a device after 2 ms, and configs have a thread
of their own".

Guarantee: one thread at most carries a job on at any time. The window hands a job's continuation out once for each time
that the job was left, under the window's lock.
"""

from __future__ import annotations

from queue import SimpleQueue
from time import monotonic_ns

from migpool.core.effects import Brought, Effect, Locked
from migpool.core.handlers import Ready
from migpool.core.interpreter import Job
from migpool.schedulers.base import Scheduler, Setup, Staffing

LEAVE_AFTER = 2_000_000
"""Nanoseconds for which one thread carries a job on before it would rather leave it to the next one that comes. A
device that takes a chunk at once is drained in one go; with one that blocks, no thread is kept from its own work."""
NOT_HERE: tuple[type[Effect[object]], ...] = (Brought, Locked)


class ReceiverScheduler(Scheduler):
    """No load threads: whoever received a chunk of a device carries its loading on."""

    sides = frozenset({"destination"})

    def setup(self, setup: Setup) -> None:
        """Start the thread for the big lock."""
        super().setup(setup)
        self._locked: SimpleQueue[Job | None] = SimpleQueue()
        self.spawn("big-lock", self._work)

    def submit(self, job: Job) -> None:
        """Begin ``job`` on the calling thread, up to the first chunk that is not here yet."""
        if self.accept(job):
            self._continuation(job)()

    def staffing(self, workers: int | None, channels: int, devices: int) -> Staffing:
        """The receivers, a channel each; a job keeps none of them while it waits."""
        del workers, devices
        return Staffing(max(1, channels), "receive")

    def release(self) -> None:
        """Let the thread for the big lock end."""
        self._locked.put(None)

    def _continuation(self, job: Job) -> Ready:
        interpreter = self.interpreter
        run, try_perform = interpreter.run, interpreter.try_perform

        def carry_on(brought: object = None) -> None:
            began = monotonic_ns()
            try:
                while (effect := run(job, NOT_HERE, brought)) is not None:
                    brought = None
                    if isinstance(effect, Brought):
                        if not try_perform(job, effect, carry_on, leave=job.since - began > LEAVE_AFTER):
                            return
                    elif isinstance(effect, Locked) and effect.lock == "big":
                        self._locked.put(job)
                        return
                    else:
                        interpreter.perform(job, effect)
            except BaseException as error:  # noqa: BLE001 -- it reaches the caller through drain
                self.ended(job, error)
            else:
                self.ended(job, None)

        return carry_on

    def _work(self) -> None:
        while (job := self._locked.get()) is not None:
            try:
                if job.effect is not None:
                    self.interpreter.perform(job, job.effect)
            except BaseException as error:  # noqa: BLE001 -- the same
                self.ended(job, error)
            else:
                self._continuation(job)()
