"""``receiver``: no load threads at all. The thread that received a device's next chunk loads it.

For loading only; ``pool+receiver`` on the command line saves with a pool and loads like this. The number of channels is
the bound on threads, and they are there anyway.

A load job here has no thread while it waits for a chunk. Whoever brings a chunk of the device carries the job on from
there by one chunk, and drains what waits behind it only if no further chunk is sure to come: while a receiver loads,
other devices' chunks stand unread on its channel.

Guarantee: one thread at most carries a job on at any time. The window hands a job's continuation out once for each time
that the job was left, under the window's lock.
"""

from __future__ import annotations

from collections.abc import Callable

from migpool.interpreter import Job
from migpool.schedulers.base import Scheduler

__all__ = ["ReceiverScheduler"]


class ReceiverScheduler(Scheduler):
    """No load threads: whoever received a chunk of a device carries its loading on."""

    sides = frozenset({"destination"})

    def submit(self, job: Job) -> None:
        """Begin ``job`` on the calling thread, up to the first chunk that is not here yet."""
        if self.accept(job):
            self._continuation(job)()

    def _continuation(self, job: Job) -> Callable[[], None]:
        def carry_on() -> None:
            try:
                done = self.interpreter.advance(job, carry_on)
            except BaseException as error:  # noqa: BLE001 -- it reaches the caller through drain
                self.ended(error)
            else:
                if done:
                    self.ended(None)

        return carry_on
