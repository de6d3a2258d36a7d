"""Steps a job: performs what it yields, traces every wait, stops at every wait when the migration is cancelled.

Guarantees:

1. An effect is performed by exactly one thread, and the next one only after its answer went into the job. What one
   effect wrote, the next one sees, whichever thread it runs on.
2. Each wait leaves one span; an effect under a lock leaves two, the wait for the lock and what was done under it. A
   wait that failed leaves its span too.
3. Once the switch is thrown, no further effect begins; the job is ended there, its ``finally`` blocks run.
4. An exception in an effect ends the job and comes out of whatever performed it; a device's own says which device and
   which chunk.

Most threading models need ``run`` alone, which performs a whole job and waits on the thread that calls it. Whoever
wants to decide effect by effect looks at ``job.effect`` and has it performed by one of two:

``perform``      waits on the calling thread
``try_perform``  leaves the job as it is if it would have to wait, and has a function called once it need not; so a job
                 lives without a thread. Chunks and credit can be waited for like that.

What the migration's own thread does besides jobs is performed by ``once``, an effect at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from inspect import GEN_CLOSED, getgeneratorstate
from threading import Lock, get_ident
from time import monotonic_ns
from types import GeneratorType
from typing import NoReturn, TypeVar, cast

from migpool.core.cancel import CancelSwitch
from migpool.core.device_calls import NOTES, Call, noted
from migpool.core.effects import Effect, Locked, NextChunk, Steps, Wait
from migpool.core.handlers import ChunkSource, Handler, Handlers, Ready
from migpool.core.machine import Slot
from migpool.core.plugin_errors import located, raised, said
from migpool.core.trace import Tracer, pack_span
from migpool.errors import DeviceError, MigpoolError

A = TypeVar("A")


class Job:
    """A job's generator and how far it has come.

    Arguments:
        name: what it does, for traces and errors: "save", "load", "sections".
        steps: the generator, from ``jobs.py``.
        slot: the device it is for; ``None`` if it is for several.
        lane: which of the device's jobs of this kind it is, from 0.

    Attributes:
        begun: whether a thread has taken it up.
        effect: what it waits for; ``None`` before it is begun, and when it has ended.
        since: when it began to, by CLOCK_MONOTONIC in nanoseconds.
    """

    __slots__ = ("begun", "effect", "lane", "name", "since", "slot", "steps", "submitted")

    def __init__(self, name: str, steps: Steps, slot: Slot | None = None, lane: int = 0) -> None:
        self.name = name
        self.steps = steps
        self.slot = slot
        self.lane = lane
        self.submitted = self.since = monotonic_ns()
        self.begun = False
        self.effect: Effect[object] | None = None

    def call(self) -> Call | None:
        """The call of the device that it is in; ``None`` if it waits for something else."""
        effect, since = self.effect, self.since
        return None if effect is None or not effect.doing else Call(effect.slot, effect.doing, effect.index, since)

    def __repr__(self) -> str:
        return f"<Job {self.name} {self.slot.name if self.slot else ''}>"


class Interpreter:
    """Performs effects for one side of one migration.

    Arguments:
        handlers: what each class of effect means here. Those of ``Locked`` classes are called with the lock held that
            the device declares.
        lock: the big lock.
        tracer: where the spans go.
        switch: looked at before every effect.
        chunks: answers ``NextChunk``; only a destination has it.

    Attributes:
        handlers: as given. More can be added as long as no job is run.
    """

    def __init__(
        self,
        handlers: Handlers,
        lock: Lock,
        tracer: Tracer,
        switch: CancelSwitch,
        chunks: ChunkSource | None = None,
    ) -> None:
        self.handlers = handlers
        self._callers = handlers.callers
        self._lock = lock
        self._tracer = tracer
        self._switch = switch
        if chunks is not None:
            handlers.on(NextChunk, chunks.take)
            handlers.on_call(NextChunk, chunks.take_or_call)
        self._ways: dict[tuple[type[Effect[object]], ...], Mapping[type[Effect[object]], Handler]] = {}

    def begin(self, job: Job) -> Effect[object] | None:
        """Take a job up, if that has not been done: its wait for a thread leaves a span.

        Returns:
            What it waits for first; ``None`` if it has ended.
        """
        if job.begun:
            return job.effect
        job.begun = True
        job.since = monotonic_ns()
        number = job.slot.number if job.slot else -1
        self._tracer.recorder()(pack_span(Wait.QUEUED, number, -1, job.submitted, job.since))
        return _go_on(job, None)

    def run(
        self, job: Job, until: tuple[type[Effect[object]], ...] = (), brought: object = None
    ) -> Effect[object] | None:
        """Perform ``job`` on the calling thread, and wait there, to its end or to an effect that others are to perform.

        Arguments:
            job: nobody else is at it.
            until: classes of effects that are not performed here.
            brought: the answer to what the job waits for now, if that was brought (``Ready``).

        Returns:
            The effect of such a class that the job waits for now; ``None`` when it has ended.
        """
        effect = job.effect or self.begin(job)
        if effect is None:
            return None
        ident = get_ident()
        before = NOTES.get(ident)
        NOTES[ident] = job
        # The data path: nothing here may allocate, log or look anything up twice.
        at_once = self._ways.get(until)
        if at_once is None:
            at_once = self._way(until)
        record = self._tracer.recorder()
        step = job.steps.send
        switch = self._switch
        begin = job.since
        try:
            if brought is not None:
                end = monotonic_ns()
                record(pack_span(effect.wait, effect.slot.number, effect.index, begin, end))
                begin = end
                effect = step(brought)
            while True:
                kind = effect.__class__
                if kind in at_once:
                    # For whoever asks where the job stands: two stores, each of them atomic, are all that it costs.
                    job.effect = effect
                    job.since = begin
                    if switch.thrown:
                        switch.check()
                    answer = at_once[kind](effect)
                    end = monotonic_ns()
                    record(pack_span(effect.wait, effect.slot.number, effect.index, begin, end))
                elif issubclass(kind, until):
                    job.effect = effect
                    job.since = begin
                    return effect
                else:
                    job.effect = effect
                    job.since = begin
                    answer = self._under_lock(effect, begin)
                    end = monotonic_ns()
                begin = end
                effect = step(answer)
        except BaseException as error:  # noqa: BLE001 -- it is raised again
            ended = _ended_by_itself(job)
            if ended and isinstance(error, StopIteration):
                job.effect = None
                return None
            if not ended and kind in at_once:
                record(pack_span(effect.wait, effect.slot.number, effect.index, begin, monotonic_ns()))
            _end(job, effect, error)
        finally:
            NOTES[ident] = before

    def perform(self, job: Job, effect: Effect[object]) -> Effect[object] | None:
        """Perform what ``job`` waits for, on the calling thread.

        Arguments:
            job: nobody else is at it.
            effect: ``job.effect``.

        Returns:
            What it waits for next; ``None`` when it has ended.
        """
        ident = get_ident()
        before = NOTES.get(ident)
        NOTES[ident] = job
        try:
            answer = self._waited_for(effect, job.since)
            job.since = monotonic_ns()
            return _go_on(job, answer)
        except BaseException as error:  # noqa: BLE001 -- the same
            _end(job, effect, error)
        finally:
            NOTES[ident] = before

    def try_perform(self, job: Job, effect: Effect[object], on_ready: Ready, *, leave: bool = False) -> bool:
        """Perform what ``job`` waits for if that is there; else leave it, and have ``on_ready`` called when it is.

        Arguments:
            job: nobody else is at it.
            effect: ``job.effect``, one of those that another thread brings (``effects.Brought``).
            on_ready: called once by whoever brings it, or throws the switch. The job can then be carried on.
            leave: leave the job also if it is there, where it is sure that ``on_ready`` is called for a later one.

        Returns:
            Whether it was performed, and the job waits for what ``job.effect`` says now. If it was not, another thread
            may already be at the job: the caller must not touch it again.
        """
        try:
            # Once our callback is given away another thread may carry the job on: what that needs stands in the job.
            answer = self._callers[effect.__class__](effect, on_ready, leave=leave)
            if answer is None:
                return False
            end = monotonic_ns()
            self._tracer.recorder()(pack_span(effect.wait, effect.slot.number, effect.index, job.since, end))
            job.since = end
            _go_on(job, answer)
        except BaseException as error:  # noqa: BLE001 -- the same
            if not _ended_by_itself(job):
                self._tracer.record(effect.wait, effect.slot.number, effect.index, job.since)
            _end(job, effect, error)
        return True

    def once(self, effect: Effect[A]) -> A:
        """Perform an effect that belongs to no job, on the calling thread: with its span, and errors as in a job.

        Returns:
            The effect's answer.
        """
        try:
            with noted(effect.slot, effect.doing) if effect.doing else nullcontext():
                return cast("A", self._waited_for(effect, monotonic_ns()))
        except BaseException as error:  # noqa: BLE001 -- the same
            _raise_located(error, effect)

    def _waited_for(self, effect: Effect[object], begin: int) -> object:
        """The answer to an effect; it leaves its spans, whatever comes of it."""
        if isinstance(effect, Locked):
            return self._under_lock(effect, begin)
        return self._alone(effect, begin)

    def _alone(self, effect: Effect[object], begin: int) -> object:
        try:
            self._switch.check()
            return self.handlers[effect.__class__](effect)
        finally:
            self._tracer.record(effect.wait, effect.slot.number, effect.index, begin)

    def _under_lock(self, effect: Effect[object], begin: int) -> object:
        """What is done in a device under the lock that it declares; each effect that comes here is ``Locked``."""
        record, number = self._tracer.recorder(), effect.slot.number
        declared = effect.lock if isinstance(effect, Locked) else "big"
        if declared == "none":
            return self._alone(effect, begin)
        big = declared == "big"
        self._switch.check()
        with self._lock if big else effect.slot.lock:
            held = monotonic_ns()
            record(pack_span(Wait.LOCK if big else Wait.OWN_LOCK, number, effect.index, begin, held))
            self._switch.check()
            try:
                return self.handlers[effect.__class__](effect)
            finally:
                record(pack_span(effect.wait, number, effect.index, held, monotonic_ns()))

    def _way(self, until: tuple[type[Effect[object]], ...]) -> Mapping[type[Effect[object]], Handler]:
        """What is performed without more ado where the effects ``until`` are left to others: all ``run`` looks up."""
        # Two threads may both make it, and make the same. Atomic: the store, and the look-up in ``run``.
        apart: tuple[type[Effect[object]], ...] = (Locked, *until)
        way = self._ways[until] = {kind: each for kind, each in self.handlers.items() if not issubclass(kind, apart)}
        return way


def _go_on(job: Job, answer: object) -> Effect[object] | None:
    """Answer what a job waited for; returns what it waits for next."""
    try:
        job.effect = job.steps.send(answer)
    except StopIteration:
        job.effect = None
    return job.effect


def _ended_by_itself(job: Job) -> bool:
    """Whether the job's own code came to its end or raised, and not an effect, which may raise StopIteration too."""
    return not isinstance(job.steps, GeneratorType) or getgeneratorstate(job.steps) == GEN_CLOSED


def _end(job: Job, effect: Effect[object], error: BaseException) -> NoReturn:
    """End a job with an error in an effect of it."""
    job.effect = None
    job.steps.close()
    try:
        _raise_located(error, effect)
    finally:
        del error  # as there


def _raise_located(error: BaseException, effect: Effect[object]) -> NoReturn:
    index = effect.index if effect.index >= 0 else None
    if effect.doing or isinstance(error, MigpoolError) or not isinstance(error, Exception):
        found = located(error, effect.slot, effect.doing, index)
    else:
        waiting = effect.wait.name.lower().replace("_", " ")
        found = DeviceError(f"{raised(error)} in its {waiting}{said(error)}").located(effect.slot.name, index)
        found.__cause__ = error
    try:
        raise found from found.__cause__
    finally:
        # An error that its own frame holds would keep all that the job held, until the collector runs.
        del found, error
