"""Crew: the threads of one ``WorkerPool``; who they are. What they do is the dispatcher's business."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from migpool.workers.worker import Worker


class Crew:
    """The workers, by thread and by number. All methods are for a caller that holds the dispatcher's lock."""

    def __init__(self) -> None:
        self.workers: dict[threading.Thread, Worker] = {}
        self.numbers: dict[int, Worker] = {}
        self.departed: list[threading.Thread] = []  # struck off, perhaps with some instructions to go
        self.most = 0

    def __iter__(self) -> Iterator[Worker]:
        return iter(self.workers.values())

    def free_number(self) -> int:
        """A number that no worker has, and no higher than there are workers: the names of threads stay in the bound."""
        number = len(self.numbers)
        while number in self.numbers:  # then a lower one is free
            number -= 1
        return number

    def enter(self, worker: Worker) -> None:
        """The worker is one of them from now on: a thread that runs must be known to whoever joins them all."""
        self.workers[worker.thread] = worker
        self.numbers[worker.number] = worker

    def forget(self, worker: Worker) -> None:
        """The worker never began."""
        del self.workers[worker.thread]
        del self.numbers[worker.number]

    def strike_off(self, worker: Worker) -> None:
        """The thread is about to end."""
        self.most = self.most_ever()
        self.forget(worker)
        self.departed = [thread for thread in self.departed if thread.is_alive()]
        self.departed.append(worker.thread)

    def most_ever(self) -> int:
        """The most that there were at any one time; it is seen before each step that makes them fewer."""
        return max(self.most, len(self.workers))

    def includes_current_thread(self) -> bool:
        """Whether the caller runs on one of the threads."""
        ident = threading.get_ident()
        return any(thread.ident == ident for thread in self.workers)

    def alive(self) -> int:
        """How many threads have not ended, those included that are being started."""
        return sum(not worker.thread.ended for worker in self.workers.values())

    def threads(self) -> list[threading.Thread]:
        """All that may still run, in no order."""
        return [*self.workers, *self.departed]
