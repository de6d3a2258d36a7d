"""Crew: the threads of one ``WorkerPool``; who they are. What they do is the dispatcher's business."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import count

from migpool.workers.worker import Worker


class Crew:
    """The workers, by thread. All methods are for a caller that holds the dispatcher's lock."""

    def __init__(self) -> None:
        self.workers: dict[threading.Thread, Worker] = {}
        self.departed: list[threading.Thread] = []  # struck off, perhaps with some instructions to go
        self.most = 0

    def __iter__(self) -> Iterator[Worker]:
        return iter(self.workers.values())

    def free_number(self) -> int:
        """The lowest number that no worker has: the names of threads stay within the bound."""
        taken = {worker.number for worker in self.workers.values()}
        return next(number for number in count() if number not in taken)

    def start(self, worker: Worker) -> None:
        """Start the thread, still under the lock: a thread that runs must be known to whoever joins them all."""
        self.workers[worker.thread] = worker
        try:
            worker.thread.start()
        except BaseException:
            # No thread could be had; or a signal handler raised, and there may be one or not: if so, it is to end.
            worker.revoked = True
            del self.workers[worker.thread]
            raise
        self.most = max(self.most, len(self.workers))

    def strike_off(self, worker: Worker) -> None:
        """The thread is about to end."""
        del self.workers[worker.thread]
        self.departed = [thread for thread in self.departed if thread.is_alive()]
        self.departed.append(worker.thread)

    def includes_current_thread(self) -> bool:
        """Whether the caller runs on one of the threads."""
        ident = threading.get_ident()
        return any(thread.ident == ident for thread in self.workers)

    def alive(self) -> int:
        """How many threads have not ended."""
        return sum(thread.is_alive() for thread in self.workers)

    def threads(self) -> list[threading.Thread]:
        """All that may still run, in no order."""
        return [*self.workers, *self.departed]
