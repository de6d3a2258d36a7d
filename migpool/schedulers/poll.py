"""``poll``: one thread and a selector for all devices that can be polled, and a few workers for what cannot.

Saving. A job whose next effect is ``ReadState`` waits in the selector, without a thread, until its device's descriptor
(``Device.poll_fd``) is readable; then the one thread reads, and sends what it has read. The other waits:

=====================  ================================================================================================
``Credit``             without a thread: the return path hands the job back to the one thread when the credit comes
``Send``               on the thread that read. It waits for the socket, and that always empties: a receiver waits for
                       nothing but its own device. With this thread waiting, other devices do
``SaveConfig``         on a thread for the big lock: it can only be done one after the other
``ReadState`` of a     on one of the workers, chunk by chunk, so that few of them serve many devices in turn
device not polled
others                 on the one thread, or on a worker if the device is not polled
=====================  ================================================================================================

A device is not polled if it has no descriptor, if epoll refuses it (a regular file, say), if it goes away, or if it is
found to be ready although reads block, as drivers' may be that have no poll of their own: if reads that the descriptor
promised not to block did so, for over a millisecond and oftener than not, or once for a tenth of a second. The report
says which devices those are.

Loading. There is no descriptor to wait on before a write. What can be waited for without a thread is the chunk: the
receiver that brings it hands the job to one of the workers, which writes that chunk, and takes the next job in turn;
``LoadConfig`` is done on the thread for the big lock.

A job's turn is part of the wait that it is in: a read's span ends when it was read, not when it could have been.

The workers are as many as ``poll:N`` says, else the smaller of the number of channels and of iterable devices; each is
made when it is needed.

Guarantees:

1. No thread is kept by a job that waits for its peer (a chunk, credit): so no number of workers, however small, can
   make two ends wait for each other.
2. One device is read, written or sent for by one thread at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic_ns, thread_time_ns
from typing import TypeAlias

from migpool.core.effects import READS, SENDS, WRITES, Brought, Effect, Locked, ReadState
from migpool.core.handlers import Ready
from migpool.core.interpreter import Job
from migpool.core.machine import Slot
from migpool.core.thread_state import ThreadState
from migpool.schedulers.base import Scheduler, Setup, Staffing, default_workers
from migpool.schedulers.lane import Lane
from migpool.schedulers.poller import Poller
from migpool.units import count_of

IN_TURN: tuple[type[Effect[object]], ...] = (Locked, *READS, *WRITES)
MAY_BLOCK = (*IN_TURN, *SENDS)
ALL: tuple[type[Effect[object]], ...] = (Effect,)

BLOCKS, BLOCKS_LONG = 1_000_000, 100_000_000
"""Nanoseconds of a read, neither computing nor waiting for a processor, from which on it blocks, or for too long."""
ENOUGH = 4
"""How many more reads must have blocked than not, for a device not to be polled any more."""
NAMED = 3


_Perform: TypeAlias = Callable[[Job, Effect[object]], Effect[object] | None]
"""As ``Interpreter.perform``."""


class _Course:
    __slots__ = ("brought", "job", "polled", "ready")

    def __init__(self, job: Job) -> None:
        self.job = job
        self.polled = False
        self.brought: object = None
        self.ready: Ready


class PollScheduler(Scheduler):
    """One thread and a selector for all devices that can be polled, a few workers for what cannot."""

    takes_workers = True

    def __init__(self) -> None:
        super().__init__()
        # Any thread asks for a device's descriptor, and gives it up. Atomic, also without the interpreter lock: the
        # store, look-up and setdefault of a dict, and list.append.
        self._descriptors: dict[int, int | None] = {}
        self._blocked: Counter[int] = Counter()
        self._not_polled: dict[str, list[str]] = {}

    def setup(self, setup: Setup) -> None:
        """Start the polling thread, at the source; the others are made when they are needed."""
        super().setup(setup)
        workers = setup.workers_or_default
        self._workers: Lane[_Course] = Lane(f"{setup.side}-worker", workers, self._work, self.spawn)
        self._lock_holder: Lane[_Course] = Lane("big-lock", 1, self._hold_lock, self.spawn)
        self._devices = sum(slot.device.iterable for slot in setup.devices)
        self._poller: Poller[_Course] | None = None
        if setup.side == "source":
            self._poller = Poller(setup.switch, self._poll, self._gone)
            self.spawn("poll", self._run_poller)

    def submit(self, job: Job) -> None:
        """Begin ``job`` on the calling thread, up to its first effect that may block. Never blocks."""
        if not self.accept(job):
            return
        course = _Course(job)
        course.ready = partial(self._hand_back, course)
        self._carry_on(course, self.interpreter.perform, MAY_BLOCK)

    def staffing(self, workers: int | None, channels: int, devices: int) -> Staffing:
        """As if no device could be polled: the workers take one effect after the other."""
        return Staffing(default_workers(workers, channels, devices), "apart")

    def release(self) -> None:
        """Let the threads end after the jobs that they have."""
        if self._poller is not None:
            self._poller.end()
        self._lock_holder.end()
        self._workers.end()

    def remarks(self) -> Sequence[str]:
        """Which devices were not polled, and why."""
        return [
            f"{len(names)} of {count_of(self._devices, 'device')} not polled, since they {reason}: "
            f"{', '.join(names[:NAMED])}{' and others' if len(names) > NAMED else ''}"
            for reason, names in self._not_polled.items()
        ]

    # ------------------------------------------------------------------ who carries a job on

    def _carry_on(
        self, course: _Course, perform: _Perform, apart: tuple[type[Effect[object]], ...], *, own: bool = False
    ) -> None:
        """Perform a job on the calling thread, until it must wait for what others bring, or is another thread's.

        Arguments:
            perform: waits on this thread.
            apart: effects that are handed over, but for the one that was handed over to this thread.
            own: see :meth:`_hand_over`.
        """
        job = course.job
        handed = job.effect
        try:
            brought, course.brought = course.brought, None
            effect = self.interpreter.run(job, ALL, brought)
            if effect is not None and effect is handed and not isinstance(effect, Brought):
                effect = perform(job, effect)
            while effect is not None:
                if isinstance(effect, apart):
                    self._hand_over(course, effect, own=own)
                    return
                if not isinstance(effect, Brought):
                    effect = perform(job, effect)
                elif self.interpreter.try_perform(job, effect, course.ready):
                    effect = job.effect
                else:
                    return
        except BaseException as error:  # noqa: BLE001 -- it reaches the caller through drain
            self.ended(course.job, error)
        else:
            self.ended(course.job, None)

    def _poll(self, course: _Course) -> None:
        self._carry_on(course, self._perform_timed, IN_TURN)

    def _work(self, course: _Course) -> None:
        self._carry_on(course, self.interpreter.perform, IN_TURN, own=True)

    def _hold_lock(self, course: _Course) -> None:
        self._carry_on(course, self.interpreter.perform, MAY_BLOCK)

    def _hand_back(self, course: _Course, brought: object = None, /) -> None:
        """What the job waited for is there; said by the thread that brought it."""
        course.brought = brought
        if course.polled and self._poller is not None:
            self._poller.put(course)
            return
        try:
            self._workers.put(course)
        except RuntimeError as error:  # no thread can be had
            course.job.steps.close()
            self.ended(course.job, error)

    def _hand_over(self, course: _Course, effect: Effect[object], *, own: bool) -> None:
        """The job's next effect is not for the thread that it is on; ``own``: which is one of the workers."""
        if isinstance(effect, Locked) and effect.lock == "big":
            self._lock_holder.put(course)
        elif isinstance(effect, ReadState) and self._parked(course, effect.slot):
            return
        elif course.polled and self._poller is not None:
            self._poller.put(course)
        else:
            self._workers.put(course, own=own)

    # ------------------------------------------------------------------ polling

    def _run_poller(self) -> None:
        self._thread = ThreadState()
        self._delayed = self._thread.delayed()
        if self._poller is not None:
            self._poller.run()

    def _parked(self, course: _Course, slot: Slot) -> bool:
        """Leave a job to the selector until its device can be read; returns whether it was."""
        if self._poller is None:
            return False
        number = slot.number
        if number not in self._descriptors:
            self._descriptors[number] = self._ask(slot)
        descriptor = self._descriptors[number]
        course.polled = descriptor is not None
        if descriptor is None:
            return False
        refusal = self._poller.watch(descriptor, number, course)
        if refusal:
            course.polled = False
            self._give_up(slot, refusal)
        return not refusal

    def _ask(self, slot: Slot) -> int | None:
        try:
            descriptor = slot.device.poll_fd()
        except Exception as error:  # noqa: BLE001 -- a plug-in's; its state can be read all the same
            self._give_up(slot, f"fail when they are asked for a descriptor ({type(error).__name__}: {error})")
            return None
        if descriptor is None:
            self._give_up(slot, "have no descriptor to poll")
        return descriptor

    def _give_up(self, slot: Slot, reason: str) -> None:
        self._descriptors[slot.number] = None
        self._not_polled.setdefault(reason, []).append(slot.name)

    def _gone(self, course: _Course, reason: str) -> None:
        effect = course.job.effect
        if effect is not None:
            self._give_up(effect.slot, reason)
        course.polled = False
        self._workers.put(course)

    def _perform_timed(self, job: Job, effect: Effect[object]) -> Effect[object] | None:
        """Perform an effect on the polling thread, and judge a descriptor by its read."""
        if not isinstance(effect, ReadState):
            return self.interpreter.perform(job, effect)
        computed, began = thread_time_ns(), monotonic_ns()
        try:
            return self.interpreter.perform(job, effect)
        finally:
            self._judge(effect, monotonic_ns() - began, computed)

    def _judge(self, read: ReadState, took: int, computed: int) -> None:
        """Whether a read that its device's descriptor promised not to block did so.

        Arguments:
            took: nanoseconds from its begin to its end.
            computed: nanoseconds that the thread had computed at its begin.
        """
        number = read.slot.number
        if took < BLOCKS:
            if self._blocked[number]:
                self._blocked[number] -= 1
            return
        blocked = took - (thread_time_ns() - computed)
        delayed = self._thread.delayed()
        blocked -= delayed - self._delayed
        self._delayed = delayed
        # The read that finds the end may ask the device for its word on it: that is no chunk, and may take a while.
        if blocked < BLOCKS or not read.chunk.length:
            return
        self._blocked[number] += 1
        if self._blocked[number] >= ENOUGH or blocked >= BLOCKS_LONG:
            self._give_up(read.slot, "say that they are readable although a read blocks")
