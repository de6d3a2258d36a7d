"""Steps a job: performs what it yields, traces every wait, stops at every wait when the migration is cancelled.

Guarantees:

1. An effect is performed by exactly one thread, and the next one only after its answer went into the job. What one
   effect wrote, the next one sees, whichever thread it runs on.
2. Each wait leaves one span; an effect under a lock leaves two, the wait for the lock and what was done under it. A
   wait that failed leaves its span too.
3. Once the switch is thrown, no further effect begins; the job is ended there, its ``finally`` blocks run.
4. An exception in an effect ends the job and comes out of ``run`` or ``advance``; a device's own says which device and
   which chunk.

A threading model calls ``run`` to wait on the thread it calls from. ``advance`` instead leaves the job where it would
have to wait for a chunk or for credit, and has a function called when that is there: that is how a job lives without a
thread. ``watched`` tells a model when a job enters and leaves a wait; only the interpreter that it returns pays for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from threading import Lock
from time import monotonic_ns
from typing import Protocol, TypeAlias, TypeVar, cast

from migpool.core.cancel import CancelSwitch
from migpool.core.effects import Effect, Locked, NextChunk, Steps, Wait
from migpool.core.machine import Slot
from migpool.core.trace import Recorder, Tracer, pack_span
from migpool.errors import DeviceError, MigpoolError

__all__ = ["ChunkSource", "Handlers", "Interpreter", "Job", "located", "of"]

Handler: TypeAlias = Callable[[Effect], object]
"""Performs one kind of effect, blocking, and returns the job's answer."""

E = TypeVar("E", bound=Effect)
T = TypeVar("T")

LEAVE_AFTER = 2_000_000
"""Nanoseconds for which one thread carries a job on before it would rather leave it to the next one that comes. A
device that takes a chunk at once is drained in one go; with one that blocks, no thread is kept from its own work."""

NEVER = 1 << 62
_NONE: Mapping[type[Effect], Handler] = {}


class Caller(Protocol):
    """Answers one kind of effect, or has somebody called; as :meth:`ChunkSource.take_or_call`."""

    def __call__(self, effect: Effect, ready: Callable[[], None], *, leave: bool) -> object | None:
        """Return the answer, which is not ``None``, if it is there; if not, have ``ready`` called when it is."""
        ...


class Handlers(dict[type[Effect], Handler]):
    """What each class of effect means at one side.

    Attributes:
        callers: how the effects that can be waited for without a thread are.
    """

    def __init__(self) -> None:
        super().__init__()
        self.callers: dict[type[Effect], Caller] = {}

    def on(self, kind: type[E], handler: Callable[[E], object]) -> None:
        """Have ``handler`` perform effects of ``kind``."""
        self[kind] = cast("Handler", handler)

    def on_call(self, kind: type[E], caller: Callable[..., object | None]) -> None:
        """Have ``caller``, a :class:`Caller` for ``kind``, answer effects of ``kind`` when nobody is to wait."""
        self.callers[kind] = cast("Caller", caller)


class ChunkSource(Protocol):
    """Where ``NextChunk`` is answered from."""

    def take(self, effect: NextChunk) -> object:
        """Wait for the chunk on the calling thread, and return it."""
        ...

    def take_or_call(self, effect: NextChunk, ready: Callable[[], None], *, leave: bool) -> object | None:
        """Return the chunk if it is there; if not, return ``None`` and have whoever brings it call ``ready``.

        ``ready`` is called once for each such answer, and also when the migration is cancelled. With ``leave`` the
        chunk may be kept back although it is there, if it is sure that somebody will bring another one.
        """
        ...


class Job:
    """A job's generator and how far it has come.

    Arguments:
        name: what it does, for traces and errors: "save", "load", "sections".
        steps: the generator, from ``jobs.py``.
        slot: the device it is for; ``None`` if it is for several.

    Attributes:
        effect: the one that it is in, ``None`` before its first.
        since: when that began, by CLOCK_MONOTONIC in nanoseconds.
    """

    __slots__ = ("effect", "name", "since", "slot", "steps", "submitted")

    def __init__(self, name: str, steps: Steps, slot: Slot | None = None) -> None:
        self.name = name
        self.steps = steps
        self.slot = slot
        self.submitted = monotonic_ns()
        self.effect: Effect | None = None
        self.since = 0

    def __repr__(self) -> str:
        return f"<Job {self.name} {self.slot.name if self.slot else ''}>"


class Interpreter:
    """Performs effects for one side of one migration.

    Arguments:
        handlers: what each class of effect means here. Those of ``Locked`` classes are called with ``lock`` held.
        lock: the big lock.
        tracer: where the spans go.
        switch: looked at before every effect.
        chunks: answers ``NextChunk``; only a destination has it.
    """

    def __init__(
        self,
        handlers: Handlers,
        lock: Lock,
        tracer: Tracer,
        switch: CancelSwitch,
        chunks: ChunkSource | None = None,
    ) -> None:
        self._handlers = handlers
        self._lock = lock
        self._tracer = tracer
        self._switch = switch
        if chunks is not None:
            handlers.on(NextChunk, chunks.take)
            handlers.on_call(NextChunk, chunks.take_or_call)
        self._locked: frozenset[type[Effect]] = frozenset(kind for kind in handlers if issubclass(kind, Locked))
        # What is performed without more ado, for who may wait and for who must not: all that the data path looks up.
        self._by_waiting = {kind: handler for kind, handler in handlers.items() if kind not in self._locked}
        self._by_calling = {kind: each for kind, each in self._by_waiting.items() if kind not in handlers.callers}

    def run(self, job: Job) -> None:
        """Perform all of ``job`` on the calling thread."""
        self.advance(job, None)

    def advance(
        self,
        job: Job,
        ready: Callable[[], None] | None,
        elsewhere: Callable[[], None] | None = None,
        apart: frozenset[type[Effect]] | None = None,
    ) -> bool:
        """Perform ``job`` on the calling thread until it is done, or must wait for what can be waited for without a
        thread (a chunk, credit), or others can carry it on.

        Arguments:
            ready: called once, by another thread, when that is there; ``advance`` may then be called again. ``None``:
                wait for everything on the calling thread.
            elsewhere: called instead of performing an effect that needs the big lock; ``advance`` may then be called
                again, by a thread that can wait for it, and performs it. ``None``: perform it here. What the effect is
                stands in ``job.effect``; after the call the job may be another thread's.
            apart: effects that ``elsewhere`` is called for as well. With it a chunk that is there is always taken: such
                a caller shares its threads out by itself, effect by effect.

        Returns:
            Whether the job is done. Once ``advance`` has returned ``False`` another thread may already be at it: the
            caller must not touch the job again.
        """
        # The data path: nothing here may allocate, log or look anything up twice.
        record = self._tracer.recorder()
        step = job.steps.send
        switch = self._switch
        special = self._locked
        at_once: Mapping[type[Effect], Handler] = self._by_waiting if ready is None else self._by_calling
        leave_after = LEAVE_AFTER
        if apart is not None:
            special, at_once, leave_after = special | apart, _NONE, NEVER
        started = monotonic_ns()
        effect = handed = job.effect  # what was handed over to this thread is performed here
        begin = job.since
        answer: object
        try:
            if effect is None:
                record(pack_span(Wait.QUEUED, job.slot.number if job.slot else -1, -1, job.submitted, started))
                effect = step(None)
                begin = monotonic_ns()
            while True:
                # Before anything else, for who asks where the job stands; and once a callback of ours is given away,
                # another thread may carry the job on at once, from what stands here.
                job.effect = effect
                job.since = begin
                if switch.thrown:
                    switch.check()
                kind = effect.__class__
                if kind in at_once:
                    answer = at_once[kind](effect)
                elif elsewhere is not None and effect is not handed and kind in special:
                    elsewhere()
                    return False
                elif kind in self._locked:
                    answer = self._under_lock(effect, record, begin)
                    handed = None
                    effect = step(answer)
                    begin = monotonic_ns()
                    continue
                elif ready is not None and kind in self._handlers.callers:
                    answer = self._handlers.callers[kind](effect, ready, leave=begin - started > leave_after)
                    if answer is None:
                        return False
                else:
                    answer = self._handlers[kind](effect)
                end = monotonic_ns()
                record(pack_span(effect.wait, effect.slot.number, effect.index, begin, end))
                handed = None  # the job may yield the same effect again
                effect = step(answer)
                begin = end
        except StopIteration:
            return True
        except BaseException as error:
            job.steps.close()
            if effect is None:
                raise
            if effect.__class__ not in self._locked:
                record(pack_span(effect.wait, effect.slot.number, effect.index, begin, monotonic_ns()))
            found = _located(error, effect)
            try:
                raise found from found.__cause__
            finally:
                # An error that its own frame holds would keep all that the job held, until the collector runs.
                del found

    def watched(
        self, kinds: frozenset[type[Effect]], entered: Callable[[Effect], None], left: Callable[[Effect], None]
    ) -> Interpreter:
        """An interpreter that does the same and says when a job waits, on the thread that it waits on.

        Arguments:
            kinds: the effects to tell of. Of one that needs the big lock, the wait for the lock is part.
            entered: called before the effect is performed.
            left: called after it, whatever came of it.
        """
        return _Watched(self, kinds, entered, left)

    def _under_lock(self, effect: Effect, record: Recorder, begin: int) -> object:
        number = effect.slot.number
        with self._lock:
            held = monotonic_ns()
            record(pack_span(Wait.LOCK, number, effect.index, begin, held))
            self._switch.check()
            try:
                return self._handlers[effect.__class__](effect)
            finally:
                record(pack_span(effect.wait, number, effect.index, held, monotonic_ns()))


class _Watched(Interpreter):
    """An interpreter that tells of waits; see :meth:`Interpreter.watched`."""

    def __init__(
        self,
        origin: Interpreter,
        kinds: frozenset[type[Effect]],
        entered: Callable[[Effect], None],
        left: Callable[[Effect], None],
    ) -> None:
        handlers = Handlers()
        for kind, handler in origin._handlers.items():
            told = kind in kinds and kind not in origin._locked
            handlers[kind] = _between(handler, entered, left) if told else handler
        handlers.callers = origin._handlers.callers
        super().__init__(handlers, origin._lock, origin._tracer, origin._switch)
        self._kinds = kinds
        self._entered = entered
        self._left = left

    def _under_lock(self, effect: Effect, record: Recorder, begin: int) -> object:
        if effect.__class__ not in self._kinds:
            return super()._under_lock(effect, record, begin)
        self._entered(effect)
        try:
            return super()._under_lock(effect, record, begin)
        finally:
            self._left(effect)


def _between(handler: Handler, entered: Callable[[Effect], None], left: Callable[[Effect], None]) -> Handler:
    def perform(effect: Effect) -> object:
        entered(effect)
        try:
            return handler(effect)
        finally:
            left(effect)

    return perform


def _located(error: BaseException, effect: Effect) -> BaseException:
    doing = effect.wait.name.lower().replace("_", " ")
    return located(error, effect.slot, doing, effect.index if effect.index >= 0 else None)


def located(error: BaseException, slot: Slot, doing: str, index: int | None = None) -> BaseException:
    """Add the device and the chunk to an error; a plug-in's unexpected exception becomes one line, itself the cause.

    Arguments:
        doing: what the device was asked to do.
        index: the chunk that it was about.
    """
    if isinstance(error, DeviceError):
        return error.located(slot.name, index)
    if isinstance(error, MigpoolError) or not isinstance(error, Exception):
        return error
    found = DeviceError(f"{type(error).__name__} in its {doing}: {error}")
    found.__cause__ = error
    return found.located(slot.name, index)


def of(slot: Slot, doing: str, call: Callable[[], T]) -> T:
    """Call a device outside of a job; an error says which device it was, and what it was doing."""
    try:
        return call()
    except Exception as error:  # noqa: BLE001 -- whatever a plug-in raises becomes an error that names the device
        found = located(error, slot, doing)
        raise found from found.__cause__
