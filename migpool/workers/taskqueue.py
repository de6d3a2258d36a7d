"""TaskQueue: the tasks of one ``WorkerPool`` that wait for a worker, first come, first served.

Cancelled tasks stay in it until a worker meets them, and are sorted out once they are the half of it: taking one out of
the middle costs the length of the queue, taking all out at once a constant in the mean. So its memory is bounded by the
tasks that wait. The oldest stand in ``ahead``, where sorting out puts what it keeps: the others, in ``back``, can be
appended to meanwhile, which a pool without a bound does without the lock (``Dispatcher.express``).

All methods are for a caller that holds the dispatcher's lock. For the way it is written, without calls between what
must happen together, see ``dispatcher.py``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from migpool.workers.worker import Task

WITHDRAWN_KEPT = 64  # cancelled tasks that may stay before their number is compared with the rest


class TaskQueue:
    """See above.

    Attributes:
        ahead: the oldest.
        back: the others; new ones are appended here.
        withdrawn: how many are cancelled and no longer count.
        most: the most that waited at any one time before the last step that shortened the queue.
    """

    __slots__ = ("ahead", "back", "most", "withdrawn")

    def __init__(self) -> None:
        self.ahead: deque[Task] = deque()
        self.back: deque[Task] = deque()
        self.withdrawn = 0
        self.most = 0

    def __iter__(self) -> Iterator[Task]:
        yield from self.ahead
        yield from self.back

    def __len__(self) -> int:
        return len(self.ahead) + len(self.back)

    def waiting(self) -> int:
        """How many wait for a worker."""
        return len(self.ahead) + len(self.back) - self.withdrawn

    def take(self) -> Task:
        """Take the first one out of the queue, which is not empty; it may be a cancelled one."""
        ahead, back = self.ahead, self.back
        # Before each step that shortens the queue: so its greatest length is seen though no append is counted.
        waiting = len(ahead) + len(back) - self.withdrawn
        if waiting > self.most:
            self.most = waiting
        tasks = ahead or back
        task = tasks[0]
        del tasks[0]
        if task.queued:
            task.queued = False
        else:
            self.withdrawn -= 1
        return task

    def remove(self, task: Task) -> None:
        """Take out ``task``, which is in the queue and not cancelled."""
        (self.ahead if task in self.ahead else self.back).remove(task)
        task.queued = False

    def withdraw(self, task: Task) -> list[Task]:
        """``task``, which is in the queue, was cancelled and no longer counts.

        Returns:
            Those that are no longer in the queue; whoever waits for them has not been told.
        """
        self.most = max(self.most, self.waiting())
        task.queued = False
        self.withdrawn += 1
        if self.withdrawn > max(WITHDRAWN_KEPT, len(self) // 2):
            return self._sort_out()
        return []

    def _sort_out(self) -> list[Task]:
        withdrawn = []
        # ``ahead`` goes round once; then what is left of ``back`` goes behind it.
        for tasks in (self.ahead, self.back):
            for _ in range(len(tasks)):
                if not tasks:  # a signal handler or a finalizer cancelled some, too
                    break
                task = tasks[0]
                del tasks[0]
                if task.queued:
                    self.ahead += (task,)
                else:
                    self.withdrawn -= 1
                    withdrawn.append(task)
        return withdrawn
