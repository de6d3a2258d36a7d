"""ConvoyFreeLock: a lock for a few instructions of Python, taken by many threads many times.

A thread that waits for an ordinary lock is made its owner while it sleeps, and keeps the lock while it waits for the
interpreter lock too, up to a switch interval of 5 ms. The thread that runs meanwhile needs the same lock at once, has
to sleep for it, and is woken as its owner in the same manner: a convoy, in which every acquisition costs a switch of
threads. It forms when a thread loses the interpreter lock inside the locked region, and it stays. What it costs a
pool: the decision "The pool's lock makes nobody its owner while asleep".

So nobody is made an owner asleep here: a thread that finds the lock taken gives up the interpreter lock for a moment,
for the owner to go on, and tries again. Each time it finds the lock still taken it waits twice as long, hence at most
twice as long as it must: the owner has then lost the interpreter lock to others, and hundreds of threads that ask for
it every few microseconds keep it from the owner.

It is reentrant, because collection and signal handlers run Python code at any instruction, also inside the region.
"""

from __future__ import annotations

import _thread
import time

# Long enough that the owner, which waits for the interpreter lock, is woken before the waiter asks for it again; such a
# wake-up takes some 50 µs, and the kernel's timer slack adds as much to any sleep.
PAUSE = 20e-6
LONGEST_PAUSE = 0.01


class ConvoyFreeLock(_thread.RLock):  # type: ignore[misc] # final for typeshed, a base type for CPython
    """Use as a context manager; or ``acquire(False) or insist()`` where no signal handler can run.

    A signal handler that raises, as that of Ctrl-C does, may strike between any two instructions of the main thread.
    The exit is therefore the base class's own, in C: one in Python could be interrupted before its first line, and
    would leave the lock taken.
    """

    __slots__ = ()

    def __enter__(self) -> bool:  # type: ignore[override] # nobody passes arguments to it
        try:
            if not self.acquire(False):
                self.insist()
        except BaseException:
            # Raised by a signal handler, and before or after the acquisition: the body will not run, nor the exit.
            if self._is_owned():  # type: ignore[attr-defined] # what threading.Condition uses, too
                self.release()
            raise
        return True

    def insist(self) -> None:
        """Acquire it after a first attempt has failed."""
        pause = PAUSE
        while not self.acquire(False):
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
