"""Dispatcher: which thread gets which task, for ``WorkerPool``; its guarantees are numbered in ``pool.py``.

A task goes, in this order, to the worker that fell idle last (its caches are warm, and those idle longest can time
out), to a new thread, to the queue, or to the line of blocked submitters. A worker that ends a task takes the next from
the queue, else from the line; only then is it idle. So no worker is idle while a task waits, and no place in the queue
is free while a submitter is blocked.

Everything is decided under one lock, held for a few instructions and never while another lock is waited for. One step
does without: in a pool without a bound, while every worker is busy, a task is simply appended to the queue
(``express``). Atomic for that, also without the interpreter lock: each operation on the deque (``append``, ``[0]``,
``del [0]``, ``len``, ``remove``), and each read and write of an attribute, which all threads see in the same order.

Finalizers and signal handlers run inside the locked region too; they may use this very pool, and a signal handler may
raise. Both happen only at a call, never between two statements without one (CPython looks for them when a call begins
or ends and when a loop goes round). Hence ``del items[-1]`` for ``items.pop()`` and ``items += (item,)`` for
``items.append(item)``: what must happen together is written without a call in between.

The dispatcher is separate from the pool so that the threads, which hold the dispatcher, do not keep the pool alive.
"""

from __future__ import annotations

import itertools
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures.thread import BrokenThreadPool

from migpool.workers.crew import Crew
from migpool.workers.exitandfork import EXIT_AND_FORK
from migpool.workers.lock import ConvoyFreeLock
from migpool.workers.submitter import LoopGate, Submitter
from migpool.workers.taskqueue import TaskQueue
from migpool.workers.thread import WorkerThread
from migpool.workers.worker import Task, Worker

UNBOUNDED = sys.maxsize


class Dispatcher:
    """The threads, the queue and the line of one pool.

    Arguments:
        max_workers: at most this many threads.
        max_pending: at most this many tasks in the queue, or ``UNBOUNDED``.
        idle_timeout: seconds after which an idle thread ends; None: never.
        prefix: what the names of the threads begin with.
        initializer: called in each thread before its first task.
        thread: makes a thread, not started, of what it does and its name; with it, whoever made them joins them.
    """

    def __init__(
        self,
        max_workers: int,
        max_pending: int,
        idle_timeout: float | None,
        prefix: str,
        initializer: Callable[[], object] | None,
        thread: Callable[[Callable[[], object], str], WorkerThread] | None = None,
    ) -> None:
        self.max_workers = max_workers
        self.max_pending = max_pending
        self.idle_timeout = idle_timeout
        self.prefix = prefix
        self.initializer = initializer
        self.thread = thread or WorkerThread
        self.owns_threads = thread is None
        self.closed = False  # no more tasks will come: a worker that finds nothing to do ends
        self.refusal: RuntimeError | None = None  # why no task is accepted
        self.pool: weakref.ref[object] | None = None  # kept here because a dead reference calls nobody
        self._begin()
        EXIT_AND_FORK.register(self)

    def _begin(self) -> None:
        """The state of a pool that never had a task or a thread."""
        self.lock = ConvoyFreeLock()
        self.tasks = TaskQueue()
        self.express: deque[Task] | None = None  # the queue's back, while a task may be appended without the lock
        self.blocked: deque[Submitter] = deque()
        self.running = 0  # workers that have a task, or are about to get one
        self.idle: list[Worker] = []
        self.crew = Crew()
        self.completed = self.most_running = self.most_blocked = 0

    # What the pool asks.

    def offer(self, task: Task, over: bool = False) -> bool:
        """Give ``task`` to a worker or to the queue; False if there is no room. ``over``: exceed the bound."""
        worker = None
        tasks = self.tasks
        try:
            with self.lock:
                if self.refusal is not None:
                    self.check()
                # Something waits although a worker is missing only where a thread could not be had.
                if self.running < self.max_workers and not (tasks.back or tasks.ahead or self.blocked):
                    if not self.idle:
                        worker = Worker(self, self.crew.free_number(), task)
                    begins = self.hand_over(task, worker)
                elif len(tasks.ahead) + len(tasks.back) - tasks.withdrawn >= self.max_pending and not over:
                    return False
                else:
                    task.queued = True
                    tasks.back.append(task)
                    return True
            # Without the lock: a thread takes long to make, and the interpreter lock is often lost over it. Under the
            # lock, every worker that ended a task meanwhile stood before it: 64 jobs of no length, a thread for each,
            # took three times as long.
            if worker is not None and begins:
                worker.thread.start()
        except BaseException:
            if worker is not None:
                self.dispense_with(worker)
            raise
        return True

    def check(self) -> None:
        """Raise the reason why no task is accepted, if there is one."""
        if self.refusal is not None:
            # A new one: each thread that raises the same exception object would add its traceback to it.
            raise type(self.refusal)(*self.refusal.args)

    def recheck(self, task: Task) -> None:
        """``task`` was appended without the lock, and ``express`` has ended meanwhile: perhaps no worker saw it."""
        with self.lock:
            if task.queued:
                try:
                    self.tasks.remove(task)
                except ValueError:
                    return  # a signal handler has raised before the append
                self.offer(task)

    def submit(self, task: Task, seconds: float | None) -> bool:
        """As :meth:`offer`, but wait in line for ``seconds`` (None: without a limit, and not at all in a worker)."""
        submitter = Submitter(task)
        try:
            if self._offer_or_line_up(submitter, over=seconds is None):
                return True
            submitter.wait(seconds)
            self.leave_line(submitter)
        except BaseException:
            self._leave_for_good(submitter)
            raise
        return self._served(submitter)

    async def submit_async(self, task: Task) -> None:
        """As :meth:`submit` without a limit, for a coroutine: it gives up the event loop meanwhile, and no thread."""
        submitter = Submitter(task, gate := LoopGate())
        try:
            if self._offer_or_line_up(submitter, over=True):
                return
            await gate.opened
            self.leave_line(submitter)
        except BaseException:
            self._leave_for_good(submitter)
            raise
        self._served(submitter)

    def _offer_or_line_up(self, submitter: Submitter, over: bool) -> bool:
        """Offer its task once more, else have it stand in line. ``over``: that of a worker exceeds the bound."""
        with self.lock:
            # Under the same lock as the place in line: room may have appeared since the first offer.
            if self.offer(submitter.task, over=over and self.crew.includes_current_thread()):
                return True
            self.blocked.append(submitter)
            self.most_blocked = max(self.most_blocked, len(self.blocked))
        return False

    def _leave_for_good(self, submitter: Submitter) -> None:
        """It was interrupted: its caller will never see the future, so nobody else could cancel it."""
        self.leave_line(submitter)
        submitter.task.cancel()

    def _served(self, submitter: Submitter) -> bool:
        """Whether its task was accepted while it stood in line; raises if none is accepted any more."""
        if not submitter.admitted:
            self.check()
        return submitter.admitted

    def close(self, reason: RuntimeError, cancel: bool = False) -> None:
        """Refuse what comes with ``reason``, also to those blocked; ``cancel``: and cancel what is queued."""
        with self.lock:
            if self.refusal is None:
                self.refusal = reason
            self.closed = True
            self.express = None
            self.refuse_blocked()
            workers = list(self.crew)
        # Without the lock, which is the first thing that each of them needs.
        for worker in workers:
            worker.inbox.put(None)
        for task in self.drain() if cancel else ():
            if task.cancel():
                task.begin()  # no worker will meet it, so nobody else tells those who wait for it

    def abandon(self, _pool: object = None) -> None:
        """The pool was collected: let the threads end when nothing is left to do.

        Collection may strike in any thread at any instruction, also under the lock of another pool; two threads that
        did so crosswise would deadlock. So this takes no lock: it writes ``closed`` before it looks at the idle, while
        a worker joins the idle before it looks at ``closed``; one of the two sees the other. Atomic, also without the
        interpreter lock: the copy of the list, and ``SimpleQueue.put``.
        """
        self.closed = True
        for worker in list(self.idle):
            worker.inbox.put(None)

    def join(self, besides: threading.Thread | None = None) -> None:
        """Wait until every thread that is the pool's own has ended, but for ``besides``."""
        if not self.owns_threads:
            return
        with self.lock:
            threads = self.crew.threads()
        for thread in threads:
            if thread is not besides:
                thread.join()

    # What a future asks.

    def withdraw(self, task: Task) -> None:
        """``task`` was cancelled: its place is free."""
        stale: list[Task] = []
        with self.lock:
            if task.queued:
                stale = self.tasks.withdraw(task)
                self.admit()
        for each in stale:
            each.begin()

    # What a worker asks.

    def following(self, worker: Worker) -> Task | None:
        """The next task from the queue or the line; None: there is none, and the worker is idle. Lock held."""
        tasks = self.tasks
        if not (tasks.back or tasks.ahead):
            # A submitter appends and then looks at ``express``; this ends ``express`` and then looks at the queue. One
            # of the two sees the other, so no task is left behind with the worker that is about to be idle.
            express, self.express = self.express, None
            if tasks.back:
                self.express = express
        if tasks.back or tasks.ahead:
            worker.task = (tasks.ahead or tasks.back)[0]
            task = tasks.take()
            if self.blocked:
                self.admit()
            return task
        if self.blocked:
            submitter = self.blocked.popleft()
            worker.task = submitter.task
            submitter.admitted = True
            submitter.gate.release()
            return submitter.task
        worker.task = None
        self.running -= 1
        self.idle.append(worker)
        if self.closed:
            worker.inbox.put(None)
        return None

    def dismiss(self, worker: Worker) -> bool:
        """Let a worker with an empty inbox end; False if something was put into it meanwhile."""
        with self.lock:
            if not worker.inbox.empty():
                return False
            if worker in self.idle:
                self.idle.remove(worker)
            else:  # a signal handler raised in the middle of handing it a task
                self.running -= 1
            self.strike_off(worker)
            return True

    def dispense_with(self, worker: Worker) -> None:
        """No thread could be had for ``worker``, or a signal handler raised on the way to it.

        Others may wait for it to be free by now. If nobody else will be, they get a worker of their own, or the error.
        """
        lost: list[tuple[Task, Exception]] = []
        with self.lock:
            if not self.revoke(worker):
                return
            while (self.tasks or self.blocked) and not self.crew.workers:
                task = self.following(worker)
                if task is not None:
                    try:
                        self.begin(task)
                    except Exception as error:  # noqa: BLE001 -- whatever it is, the task's future has it
                        lost.append((task, error))
        for task, reason in lost:
            if task.begin():
                task.settle(None, reason)

    def break_down(self, worker: Worker) -> None:
        """The initializer failed in ``worker``: the pool is of no use any more."""
        error = BrokenThreadPool("A thread initializer failed, the thread pool is not usable anymore")
        with self.lock:
            self.refusal = error
            self.express = None
            self.running -= 1
            self.refuse_blocked()
        for task in itertools.chain([worker.inbox.get()], self.drain()):
            if task is not None and task.begin():
                task.settle(None, BrokenThreadPool(*error.args))
        worker.task = None

    def replace(self, worker: Worker) -> None:
        """The thread of ``worker`` dies of an exception raised in it from outside; what waits must still run."""
        with self.lock:
            self.express = None
            if worker in self.idle:
                self.idle.remove(worker)
            else:
                self.running -= 1
            self.strike_off(worker)
            task = self.following(worker) if self.tasks or self.blocked else None
            if task is not None:
                self.begin(task)

    # Steps of the above; all with the lock held.

    def hand_over(self, task: Task, fresh: Worker | None) -> bool:
        """Begin ``task`` on an idle worker, else on ``fresh``, which the caller then starts, else queue it.

        The caller has found that there may be a worker, but the calls since may have let another submission in.

        Returns:
            Whether ``fresh`` is one of the crew now.
        """
        begins = False
        if self.idle:
            worker = self.idle[-1]
            del self.idle[-1]
            self.running += 1
            worker.task = task
            worker.inbox.put(task)
        elif fresh is not None and self.running < self.max_workers:
            self.running += 1
            self.crew.workers[fresh.thread] = fresh
            self.crew.numbers[fresh.number] = fresh
            begins = True
        else:
            task.queued = True
            self.tasks.back.append(task)
        if self.running > self.most_running:
            self.most_running = self.running
        if self.running == self.max_workers and self.max_pending == UNBOUNDED and self.refusal is None:
            self.express = self.tasks.back
        return begins

    def begin(self, task: Task) -> None:
        """As :meth:`hand_over`, with a new worker that is started here, under the lock, if there is no idle one."""
        worker = None if self.idle else Worker(self, self.crew.free_number(), task)
        try:
            if self.hand_over(task, worker) and worker is not None:
                worker.thread.start()
        except BaseException:
            if worker is not None:
                self.revoke(worker)
            raise

    def revoke(self, worker: Worker) -> bool:
        """Have a worker that may not have begun never do so; False if it has, or is not one of the crew."""
        if worker.thread not in self.crew.workers or not worker.claim():
            return False
        self.express = None
        self.running -= 1
        self.crew.forget(worker)
        worker.thread.give_up()
        return True

    def strike_off(self, worker: Worker) -> None:
        """The worker ends. In a closed pool its thread stays listed, as in the standard library."""
        if not self.closed:
            self.crew.strike_off(worker)

    def drain(self) -> Iterator[Task]:
        """Empty the queue, task by task: the lock is not held while the caller deals with one."""
        while True:
            with self.lock:
                if not self.tasks:
                    return
                task = self.tasks.take()
            yield task

    def admit(self) -> None:
        """Let blocked submitters in, first come first served."""
        while self.blocked and self.tasks.waiting() < self.max_pending:
            submitter = self.blocked[0]
            del self.blocked[0]
            submitter.task.queued = True
            self.tasks.back += (submitter.task,)
            submitter.admitted = True
            submitter.gate.release()

    def leave_line(self, submitter: Submitter) -> None:
        with self.lock:
            if submitter in self.blocked:
                self.blocked.remove(submitter)

    def refuse_blocked(self) -> None:
        while self.blocked:
            submitter = self.blocked[0]
            del self.blocked[0]
            submitter.gate.release()

    def restart_in_child(self) -> None:
        """After a fork, in the child: no tasks, and no thread but the one that forked, if that is a worker of ours."""
        survivor = self.crew.workers.get(threading.current_thread())
        lost = [*self.tasks, *(submitter.task for submitter in self.blocked)]
        lost += [worker.task for worker in self.crew if worker is not survivor and worker.task is not None]
        self._begin()
        for task in lost:
            task.stay_with_parent()
        if survivor is not None:
            self.crew.enter(survivor)
            self.running = 1
