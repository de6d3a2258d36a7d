"""What the pool's tests share: tasks that wait to be let go, and waiting for a condition with a limit."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from migpool.workers.pool import WorkerPool

LIMIT = 20.0
"""Seconds after which something that should have happened counts as never happening."""


class Gate:
    """A task that says it has begun, waits to be let go, and returns its argument."""

    def __init__(self) -> None:
        self._begun = threading.Semaphore(0)
        self._open = threading.Event()

    def __call__(self, value: int = 0) -> int:
        self._begun.release()
        assert self._open.wait(LIMIT), "nobody opened the gate"
        return value

    def await_begun(self, calls: int = 1) -> None:
        for _ in range(calls):
            assert self._begun.acquire(timeout=LIMIT), "the task did not begin"

    def open(self) -> None:
        self._open.set()


def threads_of(name: str) -> set[threading.Thread]:
    """The threads of the pool of that name."""
    return {thread for thread in threading.enumerate() if thread.name.startswith(f"{name}_")}


def until_blocked(*callers: threading.Thread) -> None:
    """Return when every thread waits for something: it sleeps, and was not woken between two looks.

    One that waits for the interpreter's lock is woken every few milliseconds.
    """

    def look() -> list[str]:
        found = []
        for caller in callers:
            status = Path(f"/proc/self/task/{caller.native_id}/status").read_text()
            found += [line for line in status.splitlines() if line.startswith(("State", "voluntary"))]
        return found

    def blocked() -> bool:
        before = look()
        time.sleep(0.02)
        return look() == before and sum("sleeping" in line for line in before) == len(callers)

    until(blocked)


def until(condition: Callable[[], bool], limit: float = LIMIT, pause: float = 0.001) -> None:
    """Return when ``condition`` holds; fail if it does not within ``limit`` seconds. ``pause``: between two looks."""
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, "the condition never held"
        time.sleep(pause)


def occupy(pool: WorkerPool, workers: int) -> Gate:
    """Keep ``workers`` workers of ``pool`` busy until the gate is opened."""
    gate = Gate()
    for _ in range(workers):
        pool.submit(gate)
    gate.await_begun(workers)
    return gate


class Caller(threading.Thread):
    """A thread that makes one call and keeps what came of it."""

    def __init__(self, call: Callable[[], object]) -> None:
        super().__init__()
        self._call = call
        self._result: object = None
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._result = self._call()
        except BaseException as error:  # noqa: BLE001 - it is raised again where somebody asks
            self._error = error

    def outcome(self) -> object:
        """What the call returned, or raised; waits for its end."""
        self.join(LIMIT)
        assert not self.is_alive(), "the call did not return"
        if self._error is not None:
            raise self._error
        return self._result
