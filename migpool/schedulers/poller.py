"""One thread that waits for many descriptors, and performs what each of them becomes readable for.

Guarantees:

1. What is watched for, or put, is performed once, on the one thread; when the switch is thrown, also what is still
   watched for.
2. A descriptor that cannot be watched is refused with the reason, at once or within ``LOOK_AGAIN`` of going away.
3. What is put after the thread has ended is performed by who puts it.
"""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from migpool.core.cancel import CancelSwitch

T = TypeVar("T")

LOOK_AGAIN = 1.0
"""Seconds of silence after which every descriptor is looked at: the kernel forgets a closed one without a word."""
READABLE_ONCE = select.EPOLLIN | select.EPOLLONESHOT


class Poller(Generic[T]):
    """A selector with a thread.

    Arguments:
        switch: ends every wait.
        perform: what is done with each thing, on the thread; must not raise.
        refused: called on the thread with a thing whose descriptor has gone away, and why.
    """

    def __init__(self, switch: CancelSwitch, perform: Callable[[T], None], refused: Callable[[T, str], None]) -> None:
        self._switch = switch
        self._perform = perform
        self._refused = refused
        self._lock = threading.Lock()
        self._put: deque[T] = deque()
        # Without the lock: a thing is performed by who has popped it. Atomic, also without the interpreter lock: the
        # store, pop and setdefault of a dict, and the copy of its keys.
        self._watched: dict[int, T] = {}
        self._owners: dict[int, int] = {}
        self._ending = self._ended = False
        self._epoll = select.epoll()
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._bell, select.EPOLLIN)
        switch.on_cancel(self._ring)

    def watch(self, descriptor: int, owner: int, thing: T) -> str:
        """Have ``thing`` performed once ``descriptor`` is readable.

        Arguments:
            owner: whose descriptor it is: no two share one.

        Returns:
            Why that cannot be; empty if it can, and then ``thing`` may be performed before this returns.
        """
        if self._owners.setdefault(descriptor, owner) != owner:
            return "share their descriptor with another device"
        try:
            # Before it is armed: from then on the thread may come for it.
            self._watched[descriptor] = thing
            self._arm(descriptor)
        except (OSError, ValueError) as error:
            if self._watched.pop(descriptor, None) is None:
                return ""  # it was performed meanwhile, since the switch was thrown
            return f"have a descriptor that epoll refuses ({getattr(error, 'strerror', None) or error})"
        if self._switch.thrown:
            self._ring()
        return ""

    def put(self, thing: T) -> None:
        """Have ``thing`` performed without a descriptor."""
        with self._lock:
            alone = self._ended
            if not alone:
                self._put.append(thing)
        if alone:
            self._perform(thing)
        else:
            self._ring()

    def end(self) -> None:
        """Let the thread end when nothing is left to do."""
        self._ending = True
        self._ring()

    def run(self) -> None:
        watched = self._watched
        while not self._over():
            events = self._epoll.poll(LOOK_AGAIN)
            for descriptor, _ in events:
                if descriptor == self._bell:
                    os.eventfd_read(self._bell)
                elif (thing := watched.pop(descriptor, None)) is not None:
                    self._perform(thing)
            while self._put:
                self._perform(self._put.popleft())
            if self._switch.thrown:
                for descriptor in list(watched):
                    if (thing := watched.pop(descriptor, None)) is not None:
                        self._perform(thing)
            elif not events:
                self._look_again()

    def _over(self) -> bool:
        with self._lock:
            if not self._ending or self._put or self._watched:
                return False
            self._ended = True
            # Under the lock: nobody rings a bell that is another thing's descriptor by then.
            self._epoll.close()
            os.close(self._bell)
            return True

    def _ring(self) -> None:
        with self._lock:
            if not self._ended:
                os.eventfd_write(self._bell, 1)

    def _arm(self, descriptor: int) -> None:
        try:
            self._epoll.modify(descriptor, READABLE_ONCE)
        except FileNotFoundError:
            self._epoll.register(descriptor, READABLE_ONCE)

    def _look_again(self) -> None:
        for descriptor in list(self._watched):
            try:
                self._epoll.modify(descriptor, READABLE_ONCE)
            except OSError as error:
                if (thing := self._watched.pop(descriptor, None)) is not None:
                    self._refused(thing, f"have a descriptor that went away ({error.strerror})")
