"""WorkerPool: a bounded thread pool that is a complete ``concurrent.futures.Executor``.

What it guarantees; the numbers are those that the tests refer to.

1. **It is an Executor.** Where it overlaps with ``ThreadPoolExecutor`` it does the same: arguments, futures, ``map``,
   ``shutdown``, a failing initializer, the interpreter's exit. CPython's own tests of ``ThreadPoolExecutor`` pass with
   a WorkerPool in its place.
2. **Threads are bounded and made on demand.** There are at most ``max_workers`` threads; one is made only for a task
   that finds no idle worker; an idle one ends after ``idle_timeout`` seconds. While a task waits, no worker is idle.
3. **The queue is bounded.** At most ``max_pending`` tasks wait for a worker; with 0, a task is accepted only by a
   worker that takes it at once. The one exception is guarantee 6.
4. **Blocked submitters are served first come, first served**, and each place that becomes free is given to the first of
   them: a later submitter cannot take it. The cancellation of a waiting task frees its place at once.
5. **No wait without an end.** A submitter that waits for room gives up after its time limit with ``PoolFull``, and is
   refused with ``RuntimeError`` as soon as the pool is shut down or broken.
6. **A worker never waits for its own pool.** ``submit`` in a task of the same pool always accepts, beyond the bound if
   need be: the room that it would wait for may be what it holds itself. ``try_submit`` and ``submit_within`` end by
   themselves and so keep to the bound there, too. (Waiting in a task for the *result* of another task of the same pool
   can deadlock, as in any pool, when all workers do it.)
7. **A task runs in a copy of the context** (``contextvars``) in which it was submitted; what it sets, nobody else sees.
8. **Seeing a result means that its worker is free**: a submitter that has just got the result of the only task finds
   the worker idle. Where the future has callbacks, the worker is free after the last of them.
9. **Nothing outlives the pool.** When ``shutdown(wait=True)`` returns, every thread of the pool's own has ended. A pool
   that is collected finishes its tasks and lets its threads end. A worker holds on to no task, argument, result or
   exception while it is idle.
10. **A fork leaves the child a working, empty pool**: the threads and the tasks stay with the parent. In the child the
    futures of those tasks are cancelled (their callbacks are the parent's, and who had begun to wait for several of
    them is not told). If a task forks, its thread is the child's first worker, and that task goes on.
11. **An interrupt leaves the pool intact.** A signal handler may raise in any method here, and a finalizer or a signal
    handler may call any; at worst the interrupted submission is lost.
"""

from __future__ import annotations

import itertools
import operator
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.thread import BrokenThreadPool
from dataclasses import dataclass
from functools import partial
from numbers import Real
from typing import TYPE_CHECKING, ParamSpec, SupportsIndex, TypeVar

from migpool.errors import PoolFull
from migpool.units import count_of
from migpool.workers.boundedmap import BoundedMap
from migpool.workers.dispatcher import UNBOUNDED, Dispatcher
from migpool.workers.future import TaskFuture
from migpool.workers.thread import WorkerThread

if TYPE_CHECKING:
    import asyncio

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """What a pool does now, and the most it has done at any one time since it was made.

    Arguments:
        queued, most_queued: tasks that wait for a worker; cancelled ones do not count.
        running, most_running: workers that have a task, its callbacks included.
        threads, most_threads: threads that are alive.
        blocked, most_blocked: submitters that wait for room.
        completed: tasks that ended, with a result or an exception.
    """

    queued: int
    running: int
    threads: int
    blocked: int
    completed: int
    most_queued: int
    most_running: int
    most_threads: int
    most_blocked: int


class WorkerPool(ThreadPoolExecutor):
    """A thread pool whose threads and whose queue are both bounded. See the top of this file for what it guarantees.

    It is a ``ThreadPoolExecutor`` by name, since an event loop takes nothing else for its default executor, and shares
    no code with it.

    Arguments:
        max_workers: at most this many threads; None: four more than there are CPUs, at most 32.
        thread_name_prefix: threads are called ``PREFIX_N``, N from 0; empty: the class's name and a number.
        initializer: called in each thread before its first task; if it raises, the pool is broken: every task that
            waits, and every later ``submit``, fails with ``BrokenThreadPool``.
        initargs: its arguments.
        max_pending: at most this many tasks wait for a worker, then ``submit`` blocks; None: no bound.
        idle_timeout: seconds after which an idle thread ends; None: it stays until shutdown.
        thread: makes a thread, not started, of what it does and its name, such as a migration's
            :meth:`~migpool.core.threads.ThreadGroup.thread`. Whoever gives it owns the threads: ``shutdown`` tells them
            to end and does not wait for them, nor does the interpreter's exit.

    Raises:
        ValueError: a bound that is negative, or no worker at all.
        TypeError: ``initializer`` cannot be called, or what should be a number or a name is none.

    In a coroutine use :meth:`submit_async`. ``asyncio.to_thread`` and ``run_in_executor`` call ``submit`` in the event
    loop's own thread, which then blocks while a bounded pool is full: give ``loop.set_default_executor`` one without.
    """

    # Numbers the pools that have no name, as in the standard library.
    _counter = itertools.count().__next__

    def __init__(
        self,
        max_workers: int | None = None,
        thread_name_prefix: str = "",
        initializer: Callable[..., object] | None = None,
        initargs: tuple[object, ...] = (),
        *,
        max_pending: int | None = None,
        idle_timeout: float | None = 10.0,
        thread: Callable[[Callable[[], object], str], WorkerThread] | None = None,
    ) -> None:
        max_workers = _default_workers() if max_workers is None else _integer("max_workers", max_workers)
        if max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        if max_pending is not None and _integer("max_pending", max_pending) < 0:
            raise ValueError("max_pending must not be negative; None is for no bound")
        if idle_timeout is not None and not _seconds("idle_timeout", idle_timeout) >= 0:
            raise ValueError("idle_timeout must not be negative; None is for no limit")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if thread_name_prefix is not None and not isinstance(thread_name_prefix, str):
            # A number here was meant for the bound, and without a word there would be none.
            raise TypeError(
                f"thread_name_prefix must be a string, not {thread_name_prefix!r}: the bound is max_pending="
            )
        self._max_workers = max_workers
        self._max_pending = UNBOUNDED if max_pending is None else max_pending
        self._thread_name_prefix = thread_name_prefix or f"{type(self).__name__}-{self._counter()}"
        self._dispatcher = Dispatcher(
            max_workers,
            self._max_pending,
            idle_timeout if idle_timeout is None else min(idle_timeout, threading.TIMEOUT_MAX),
            self._thread_name_prefix,
            None if initializer is None else partial(initializer, *initargs),
            thread,
        )
        # The threads hold the dispatcher alone, so the pool can be collected while they live; this tells them.
        self._dispatcher.pool = weakref.ref(self, self._dispatcher.abandon)

    # What tests and debuggers of the standard library's pool look at; plain attributes there.

    @property
    def _threads(self) -> set[threading.Thread]:  # type: ignore[override]
        return set(self._dispatcher.crew.workers)

    @property
    def _shutdown(self) -> bool:  # type: ignore[override]
        return self._dispatcher.closed

    @property
    def _broken(self) -> str | bool:  # type: ignore[override]
        refusal = self._dispatcher.refusal
        return str(refusal) if isinstance(refusal, BrokenThreadPool) else False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Have ``fn(*args, **kwargs)`` called by a worker, and wait for room if there is none.

        Raises:
            RuntimeError: the pool was shut down, also while this waited.
            BrokenThreadPool: an initializer failed.
        """
        dispatcher = self._dispatcher
        task = TaskFuture(dispatcher, fn, args, kwargs)
        express = dispatcher.express
        if express is None:
            if not dispatcher.offer(task):
                dispatcher.submit(task, None)
            return task
        task.queued = True
        try:
            express.append(task)
            # Looked at again after the append: see Dispatcher.following.
            if dispatcher.express is None:
                dispatcher.recheck(task)
        except BaseException:
            # A signal handler has raised before that look: with a task in the queue and no worker that saw it, later
            # ones would wait behind it for ever.
            dispatcher.recheck(task)
            raise
        return task

    def try_submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """As :meth:`submit`, but never wait.

        Raises:
            PoolFull: there is no room now.
        """
        task = TaskFuture(self._dispatcher, fn, args, kwargs)
        if not self._dispatcher.offer(task):
            raise PoolFull(f"{self._thread_name_prefix}: {self._fullness()}; try again, or wait with submit")
        return task

    def submit_within(self, seconds: float, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """As :meth:`submit`, but wait for room no longer than ``seconds``.

        Raises:
            PoolFull: there was no room in that time.
            ValueError: ``seconds`` is negative.
        """
        if not _seconds("seconds", seconds) >= 0:
            raise ValueError(f"seconds must not be negative: {seconds}")
        task = TaskFuture(self._dispatcher, fn, args, kwargs)
        if not (self._dispatcher.offer(task) or self._dispatcher.submit(task, seconds)):
            raise PoolFull(
                f"{self._thread_name_prefix}: {self._fullness()} for {seconds} s; wait longer, or add workers"
            )
        return task

    async def submit_async(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
        """As :meth:`submit`, for a coroutine: its event loop runs on while it waits for room, in line with the threads.

        Returns:
            The event loop's future of the call. To cancel it cancels the call, if that has not begun; so does to cancel
            the coroutine while it waits for room.
        """
        from asyncio import wrap_future  # which a program without a loop need not pay for

        task = TaskFuture(self._dispatcher, fn, args, kwargs)
        if not self._dispatcher.offer(task):
            await self._dispatcher.submit_async(task)
        return wrap_future(task)

    def _fullness(self) -> str:
        return f"no worker of {self._max_workers} was free, and {count_of(self._max_pending, 'task')} queued"

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[object],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """As the built-in ``map``, with the calls made by workers; the results come in the order of the arguments.

        In a pool without a bound all calls are submitted at once, as in the standard library. In a bounded pool as many
        are submitted as there is room for, and the others as results are taken: no more than ``max_workers +
        max_pending`` results are ever held, and the iterables may be endless.

        Arguments:
            timeout: seconds from now within which every result must have been taken; None: no limit.
            chunksize: of no effect, as in the standard library.
            buffersize: at most this many calls are submitted whose results were not taken, as in the standard library
                from Python 3.14 on; None: only the pool's bound counts.

        Raises:
            TypeError: ``buffersize`` is no integer.
            ValueError: ``buffersize`` is below 1.
            TimeoutError: a result, or room for a call, was not there in time.
            Exception: whatever the call raised whose turn it is. The calls that have not begun are then cancelled.
        """
        if buffersize is not None and not isinstance(buffersize, int):
            raise TypeError("buffersize must be an integer or None")
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        width = UNBOUNDED if self._max_pending == UNBOUNDED else self._max_workers + self._max_pending
        if buffersize is not None:
            width = min(width, buffersize)
        if width == UNBOUNDED:
            return super().map(fn, *iterables, timeout=timeout, chunksize=chunksize)
        mapping = BoundedMap(self, width, fn, zip(*iterables, strict=False), timeout)
        self._dispatcher.check()
        mapping.fill()
        return mapping.results()

    def statistics(self) -> PoolStatistics:
        """What the pool does now and the most it has done; all numbers of the same instant."""
        dispatcher = self._dispatcher
        with dispatcher.lock:
            queued = dispatcher.tasks.waiting()
            return PoolStatistics(
                queued=queued,
                running=dispatcher.running,
                threads=dispatcher.crew.alive(),
                blocked=len(dispatcher.blocked),
                completed=dispatcher.completed,
                most_queued=max(dispatcher.tasks.most, queued),
                most_running=dispatcher.most_running,
                most_threads=dispatcher.crew.most_ever(),
                most_blocked=dispatcher.most_blocked,
            )

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept no more tasks, and let the threads end when those accepted are done. May be called again.

        Arguments:
            wait: return only when every thread has ended, unless somebody else owns them.
            cancel_futures: cancel the tasks that wait in the queue.
        """
        self._dispatcher.close(RuntimeError("cannot schedule new futures after shutdown"), cancel_futures)
        if wait:
            self._dispatcher.join()

    def __repr__(self) -> str:
        now = self.statistics()
        most, waiting = self._max_pending, now.queued
        queued = count_of(waiting, "task") if most == UNBOUNDED else f"{waiting} of {count_of(most, 'task')}"
        state = "broken" if self._broken else "shut down" if self._shutdown else "open"
        busy, blocked = count_of(self._max_workers, "worker"), count_of(now.blocked, "submitter")
        return (
            f"<{type(self).__name__} {self._thread_name_prefix!r}: {now.running} of {busy} busy, {queued} queued, "
            f"{blocked} blocked, {state}>"
        )


def _integer(name: str, value: object) -> int:
    if not isinstance(value, SupportsIndex):
        raise TypeError(f"{name} must be an integer, not {value!r}")
    return operator.index(value)


def _seconds(name: str, value: object) -> float:
    if not isinstance(value, Real):
        raise TypeError(f"{name} must be a number of seconds, not {value!r}")
    return float(value)


def _default_workers() -> int:
    # From 3.13 on: those that this process may use.
    cpus: int | None = getattr(os, "process_cpu_count", os.cpu_count)()
    return min(32, (cpus or 1) + 4)
