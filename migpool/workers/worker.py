"""Worker: one thread of a ``WorkerPool``, from its initializer to its end.

It runs what it is handed and then whatever waits; only when nothing waits does it stand idle, at its inbox. What comes
next is decided by the dispatcher, under the dispatcher's lock; what runs here runs without it.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import Any, Protocol

from migpool.workers.future import TaskFuture
from migpool.workers.lock import ConvoyFreeLock
from migpool.workers.thread import WorkerThread

LOGGER = logging.getLogger("concurrent.futures")

Task = TaskFuture[Any]  # the results of a pool's tasks have nothing in common


class Orders(Protocol):
    """Where a worker's orders come from: what it asks of its :class:`~migpool.workers.dispatcher.Dispatcher`."""

    lock: ConvoyFreeLock
    prefix: str
    completed: int
    idle_timeout: float | None
    initializer: Callable[[], object] | None
    thread: Callable[[Callable[[], object], str], WorkerThread]

    def following(self, worker: Worker) -> Task | None:
        """The next task; None: the worker is idle. Lock held."""

    def dismiss(self, worker: Worker) -> bool:
        """Let an idle worker end; False if it was handed a task meanwhile."""

    def break_down(self, worker: Worker) -> None:
        """Its initializer failed."""

    def replace(self, worker: Worker) -> None:
        """Its thread dies of an exception that was raised in it from outside."""


class Worker:
    """A thread, its number (the end of its name), and the inbox where it is handed tasks; None there means "look up".

    Arguments:
        dispatcher: who decides what it does.
        number: unique among the pool's workers.
        task: what it begins with.
    """

    __slots__ = ("_unclaimed", "dispatcher", "inbox", "number", "task", "thread")

    def __init__(self, dispatcher: Orders, number: int, task: Task) -> None:
        self.dispatcher = dispatcher
        self.number = number
        # What it runs, or was handed: a child of a fork has to know, which may come at any instant. So it stands here
        # before it leaves the queue, or the inbox; written by the dispatcher, with its lock held.
        self.task: Task | None = task
        self._unclaimed = threading.Lock()
        # By the inbox and not as an argument: a thread keeps its arguments, and with them the first result, all its
        # life.
        self.inbox: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self.inbox.put(task)
        self.thread = dispatcher.thread(self.live, f"{dispatcher.prefix}_{number}")

    def claim(self) -> bool:
        """Whether the caller is the first to ask: the thread, which then lives, or who could not start it.

        A new thread needs no more than this before its first task, above all not the dispatcher's lock.
        """
        return self._unclaimed.acquire(False)

    def live(self) -> None:
        """The thread's whole life."""
        if not self.claim():
            return
        try:
            if self.dispatcher.initializer is not None:
                self.dispatcher.initializer()
        except BaseException:
            # The words of concurrent.futures.thread, here and below: whoever looks for them in a log finds both.
            LOGGER.critical("Exception in initializer:", exc_info=True)
            self.dispatcher.break_down(self)
            return
        try:
            while self.work():
                pass
        except BaseException:
            LOGGER.critical("Exception in worker", exc_info=True)
            self.dispatcher.replace(self)

    def receive(self) -> Task | None:
        """Stand idle until handed a task; None to end."""
        while True:
            try:
                task = self.inbox.get(timeout=self.dispatcher.idle_timeout)
            except queue.Empty:
                task = None
            # Refused by the dispatcher: a task was put into the inbox just after the wait ended. It is there now.
            if task is not None or self.dispatcher.dismiss(self):
                return task

    def work(self) -> bool:
        """Await a task, run it and whatever waits after it, and be idle; False instead of a task: end.

        Explicit acquire and release cost half of a ``with``, and are safe here: only the main thread runs signal
        handlers, so nothing is raised between the acquire and the ``try``.
        """
        task = self.receive()
        if task is None:
            return False
        following = task if task.begin() else self.next_begun()
        while following is not None:
            task = following
            result, error = task.run()
            lock = self.dispatcher.lock
            if not lock.acquire(False):
                lock.insist()
            try:
                # A result that can be seen and a worker that is free again are one step: whoever has just seen the
                # result and submits again finds this worker idle, and starts no second thread.
                self.dispatcher.completed += 1
                published = task.publish(result, error)
                if published:
                    following = self.dispatcher.following(self)
                    begun = following is None or following.begin_locked()
            finally:
                lock.release()
            if not published:
                # Callbacks run in here, so the worker is not free before: it would be handed a task it cannot begin.
                task.settle(result, error)
                following = self.next_begun()
            elif not begun and following is not None and not following.begin():
                following = self.next_begun()
            del task, result, error  # nothing of this task is kept while the next one runs
        return True

    def next_begun(self) -> Task | None:
        """The next task that was not cancelled; None: there is none, and the worker is idle."""
        while True:
            with self.dispatcher.lock:
                task = self.dispatcher.following(self)
            if task is None or task.begin():
                return task
