"""Whether the source still makes progress."""

from __future__ import annotations

import time
from collections.abc import Callable

from migpool.core.cancel import CancelSwitch
from migpool.errors import PeerError


class Liveness:
    """Asked by every reader at the destination that waits, at its ticks.

    Arguments:
        switch: an idle reader stops when it is thrown.
        limit: how long nothing may come that is waited for, in seconds.
        look: called at every tick; throws the switch if something else is wrong.
        named: which setting the limit is of, and what to do where it is too short, for the error.

    Attributes:
        moved: something has come, or was loaded, since a reader looked last; set by whoever sees it. To look at the
            clock each time would cost the data path a call a chunk, and a reader that waits need not know better.
            Atomic: the read and the write; one that is lost between the two of a reader, the next chunk makes up for.
    """

    def __init__(self, switch: CancelSwitch, limit: float, look: Callable[[], None], named: str = "") -> None:
        self._switch = switch
        self._limit = limit
        self._look = look
        self._named = named
        self._since = time.monotonic_ns()
        self.moved = False

    def idle(self, waited_for: str) -> None:
        """A reader has waited for a tick.

        Arguments:
            waited_for: what can only come from the source; empty if there is no such thing just now.

        Raises:
            PeerError: it has not come for too long.
            Cancelled: the switch is thrown.
        """
        self._look()
        self._switch.check()
        if self.moved:
            self.moved = False
            self._since = time.monotonic_ns()
        elif waited_for and time.monotonic_ns() - self._since > self._limit * 1e9:
            raise PeerError(f"{waited_for}; nothing has come from the source for {self._limit:g} s{self._named}")
