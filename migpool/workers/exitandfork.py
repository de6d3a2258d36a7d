"""What happens to thread pools when the interpreter exits or the process forks.

Both are events of the whole process, so the list of who wants to hear of them is the process's too: the one piece of
module state here. It holds its members weakly and is empty when there is no pool.

* **Exit.** Before the interpreter joins the threads that are left, every pool is told to accept nothing more, and its
  threads are joined: tasks already submitted are finished, as in ``concurrent.futures.thread``. This needs
  ``threading._register_atexit``, the hook that the standard library's own executors use; ``atexit`` runs after the
  interpreter has waited for the threads, hence never if an idle one waits for work.
* **Fork.** The child has one thread and a copy of everybody's locks, some of them held by threads that do not exist.
  Every pool of the child starts empty, with a lock of its own.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Protocol


class PoolMember(Protocol):
    """What a member must be able to do."""

    def close(self, reason: RuntimeError, cancel: bool = False) -> None:
        """Accept nothing more, refusing with ``reason``; let the threads end when nothing is left to do."""

    def join(self, besides: threading.Thread | None = None) -> None:
        """Wait until every thread that is the pool's own has ended, but for ``besides``."""

    def restart_in_child(self) -> None:
        """Forget threads and tasks; they are the parent's."""


class ExitAndFork:
    """The members, and whether the interpreter is on its way out."""

    def __init__(self) -> None:
        self.lock = threading.RLock()  # reentrant: a finalizer may make a pool
        self.members: weakref.WeakSet[PoolMember] = weakref.WeakSet()
        self.exiting = False

    def register(self, pool: PoolMember) -> None:
        """Tell ``pool`` of exit and fork from now on; at once, if the interpreter is exiting already."""
        with self.lock:
            self.members.add(pool)
            exiting = self.exiting
        if exiting:
            pool.close(self.refusal())

    def refusal(self) -> RuntimeError:
        """What a submitter is told."""
        return RuntimeError("cannot schedule new futures after interpreter shutdown")

    def exit(self) -> None:
        """The interpreter is exiting."""
        with self.lock:
            self.exiting = True
            pools = list(self.members)
        # All are closed before the first is joined: a task of one may wait for room in another.
        for pool in pools:
            pool.close(self.refusal())
        for pool in pools:
            # The child of a fork in a task exits on that task's thread, one of the pool's.
            pool.join(besides=threading.current_thread())

    def forked(self) -> None:
        """This is the child of a fork."""
        self.lock = threading.RLock()
        for pool in list(self.members):
            pool.restart_in_child()


EXIT_AND_FORK = ExitAndFork()

threading._register_atexit(EXIT_AND_FORK.exit)  # type: ignore[attr-defined] # not public, see above
os.register_at_fork(after_in_child=EXIT_AND_FORK.forked)
