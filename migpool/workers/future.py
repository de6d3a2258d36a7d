"""TaskFuture: the ``concurrent.futures.Future`` of a ``WorkerPool`` task, without the price of a ``Condition`` a task.

The standard Future makes a ``Condition`` (a lock and two containers) when it is made, and takes it at every step.
Almost no future needs it: most are submitted, run, and asked for their result. A TaskFuture makes its Condition when
somebody first asks for it: ``concurrent.futures.wait`` and ``as_completed``, ``add_done_callback``, ``exception`` on an
unfinished future, ``repr``. From then on it *is* a standard Future: every method defers to the base class.

Guarantees:

1. **Watched or not is decided under one small lock**, that of the future's home. A state is published under that lock
   as long as there is no Condition, and under the Condition once there is one; a Condition once made stays. So whoever
   holds ``future._condition`` sees a state that does not change under their hands, which is what ``as_completed``
   stands on.
2. **The home's lock is a leaf**: nothing else is acquired while it is held. ``concurrent.futures.wait`` acquires the
   Conditions of many futures at once, in the order of their ids; a lock shared by many futures that took part in that
   order would deadlock two such calls, hence a Condition a future.
3. **A state is written last**, after the result or the exception it announces, and a final state never changes; so a
   finished future is read without any lock: who sees a state sees what was written before it, also without the
   interpreter lock.
4. **Callbacks run with no lock held**, after everybody who waits for the result was woken.
5. **A future does not keep its task alive**: the callable, its arguments and its context are dropped when the task
   begins to run or is cancelled.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, InvalidStateError
from contextvars import Context, copy_context
from typing import Protocol, TypeVar

from migpool.workers.lock import ConvoyFreeLock

T = TypeVar("T")

# The standard library's own names of the states; ``wait`` and ``as_completed`` compare with these strings.
PENDING = "PENDING"
RUNNING = "RUNNING"
CANCELLED = "CANCELLED"
FINISHED = "FINISHED"
CANCELLED_AND_NOTIFIED = "CANCELLED_AND_NOTIFIED"
CANCELLED_STATES = (CANCELLED, CANCELLED_AND_NOTIFIED)
FINAL_STATES = ("FINISHED", *CANCELLED_STATES)

LOGGER = logging.getLogger("concurrent.futures")


class Home(Protocol):
    """Who made a TaskFuture: the owner of its small lock, told when the future is cancelled."""

    lock: ConvoyFreeLock
    """Reentrant: a finalizer or a signal handler may cancel or submit in the middle of a locked region."""

    def withdraw(self, task: TaskFuture[T]) -> None:
        """``task`` was cancelled. Called with no lock held."""


class TaskFuture(Future[T]):
    """A Future that is its own work item: it carries the call until the call begins.

    Arguments:
        home: the owner of the lock, and who hears of a cancellation.
        fn, args, kwargs: the call. It will run in a copy of the context in which the future was made.
    """

    __slots__ = (
        "_call",
        "_done_callbacks",
        "_exception",
        "_gates",
        "_home",
        "_result",
        "_state",
        "_waiters",
        "_watch",
        "queued",
    )

    _exception: BaseException | None
    _result: T | None
    _state: str

    def __init__(self, home: Home, fn: Callable[..., T], args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        # The base class's __init__ is left out on purpose: it makes the Condition and the two lists.
        self._state = PENDING
        self._result = None
        self._exception = None
        self._call: tuple[Context, Callable[..., T], tuple[object, ...], dict[str, object]] | None
        self._call = (copy_context(), fn, args, kwargs)
        self._home = home
        self._watch: threading.Condition | None = None
        self._gates: list[threading.Lock] | None = None
        self.queued = False

    @property
    def _condition(self) -> threading.Condition:  # type: ignore[override] # the base class has a plain attribute
        """The Condition that the standard library's functions take, made now if this is the first time."""
        with self._home.lock:
            if self._watch is None:
                self._waiters = []
                self._done_callbacks: list[Callable[[Future[T]], object]] = []
                self._watch = threading.Condition()
            return self._watch

    # What a worker does with it.

    def begin(self) -> bool:
        """Pending to running; False if the future was cancelled, in which case all who wait for it have been told."""
        with self._home.lock:
            if self._watch is None and self._state == PENDING:
                self._state = RUNNING
                return True
        return self.set_running_or_notify_cancel()

    def begin_locked(self) -> bool:
        """As :meth:`begin`, for a caller that holds the home's lock; False also where only :meth:`begin` can tell."""
        if self._watch is None and self._state == PENDING:
            self._state = RUNNING
            return True
        return False

    def run(self) -> tuple[T | None, BaseException | None]:
        """Make the call, in its own context; its result or its exception. Call once, after a successful begin."""
        assert self._call is not None
        context, fn, args, kwargs = self._call
        self._call = None
        try:
            # The general form costs 0.1 µs of packing and unpacking, whether or not there are arguments.
            if kwargs:
                return context.run(fn, *args, **kwargs), None
            return (context.run(fn, *args) if args else context.run(fn)), None
        except BaseException as error:  # noqa: BLE001 - whatever a task raises is its outcome
            # Whoever keeps the exception keeps the frames of the task, and by ``f_back`` this one too: it must not hold
            # anything. Nor is it of interest in the traceback.
            del self, context, fn, args, kwargs
            return None, error.with_traceback(error.__traceback__ and error.__traceback__.tb_next)

    def publish(self, result: T | None, error: BaseException | None) -> bool:
        """Finish an unwatched future; False if somebody watches it (then :meth:`settle`). Caller holds the lock."""
        if self._watch is not None:
            return False
        self._result = result
        self._exception = error
        self._state = FINISHED
        if self._gates:
            self._open_gates()
        return True

    def settle(self, result: T | None, error: BaseException | None) -> None:
        """Finish a watched future: tell waiters, run callbacks. Caller holds no lock."""
        try:
            if error is None:
                self.set_result(result)  # type: ignore[arg-type] # T may well be None
            else:
                self.set_exception(error)
        except InvalidStateError:
            LOGGER.critical("the result of a task was set by somebody else than its worker: %r", self)

    def stay_with_parent(self) -> None:
        """This is the child of a fork, where its call will not be made: whoever looks at it here finds it cancelled.

        Only one thread is here, and none that waits: it has just forked. Callbacks are the parent's.
        """
        self._call = None
        self._gates = None
        if self._watch is not None:
            self._watch = threading.Condition()  # a thread that is not here may have held the old one
        if self._state != FINISHED:
            self._state = CANCELLED_AND_NOTIFIED

    # What everybody else does with it.

    def cancel(self) -> bool:
        """Cancel the future if it has not begun; its place in the queue is free at once. True if it is cancelled."""
        with self._home.lock:
            watched = self._watch is not None
            if not watched:
                if self._state != PENDING:
                    return self._state in CANCELLED_STATES
                self._state = CANCELLED
                self._open_gates()
        if watched and not super().cancel():
            return False
        self._call = None
        self._home.withdraw(self)
        return True

    def cancelled(self) -> bool:
        """True if the future was cancelled."""
        return self._state in CANCELLED_STATES

    def running(self) -> bool:
        """True while the call is being made."""
        return self._state == RUNNING

    def done(self) -> bool:
        """True if the future was cancelled or its call has ended."""
        return self._state in FINAL_STATES

    def result(self, timeout: float | None = None) -> T:
        """The result of the call.

        Arguments:
            timeout: how long to wait for it, in seconds; None: without a limit.

        Raises:
            CancelledError: the future was cancelled.
            TimeoutError: the call did not end in time.
            Exception: whatever the call raised.
        """
        try:
            if self._state != FINISHED:
                self._await_end(timeout)
            if self._exception is not None:
                raise self._exception
            return self._result  # type: ignore[return-value] # T may well be None
        finally:
            # The exception's traceback holds this frame; without ``self`` in it there is no cycle.
            del self

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What the call raised, or None. Arguments and exceptions as in :meth:`result`."""
        if self._state == FINISHED:
            return self._exception
        return super().exception(timeout)

    def _await_end(self, timeout: float | None) -> None:
        """Return when the call has ended; a bare lock costs a third of a Condition, and wakes without a second lock."""
        gate = threading.Lock()
        gate.acquire()
        with self._home.lock:
            # A watched future's state changes outside this lock, but its gates are opened under it and after the
            # change: either the change is seen here or the gate is seen there.
            if self._state not in FINAL_STATES:
                if self._gates is None:
                    self._gates = []
                self._gates.append(gate)
            else:
                gate.release()
        try:
            gate.acquire(timeout=-1 if timeout is None else min(max(timeout, 0), threading.TIMEOUT_MAX))
        finally:
            with self._home.lock:
                if self._gates and gate in self._gates:
                    self._gates.remove(gate)
        if self._state in CANCELLED_STATES:
            raise CancelledError
        if self._state != FINISHED:
            raise TimeoutError

    def _open_gates(self) -> None:
        with self._home.lock:
            gates, self._gates = self._gates, None
            for gate in gates or ():
                gate.release()

    def _invoke_callbacks(self) -> None:
        # The base class calls this after each change to a final state: the one place to wake who waits in ``result``,
        # and before the callbacks, since a callback may take long or wait for that very thread.
        self._open_gates()
        super()._invoke_callbacks()  # type: ignore[misc] # unknown to typeshed; called by the base class's own methods
