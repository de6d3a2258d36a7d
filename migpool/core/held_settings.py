"""Settings of the whole process that hold while migrations need them, and are then put back."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from threading import Lock

Undo = Callable[[], None]


class HeldSetting:
    """One setting. With several users at once the first one's change holds until the last has ended."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._users = 0
        self._put_back: Undo = _nothing

    @contextmanager
    def held(self, change: Callable[[], Undo]) -> Iterator[None]:
        """Have it changed; ``change`` returns what puts it back."""
        with self._lock:
            if not self._users:
                self._put_back = change()
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    self._put_back()


def short_switch_interval(seconds: float) -> AbstractContextManager[None]:
    """Hold the interpreter's switch interval at ``seconds`` or lower; 0 leaves it alone.

    To get the interpreter lock back after a blocking call takes up to a switch interval, if another thread computes:
    the decision "The interpreter's switch interval is 0.1 ms while a migration runs".
    """
    return _INTERVAL.held(partial(_shorten_interval, seconds)) if seconds else nullcontext()


def no_garbage_collection() -> AbstractContextManager[None]:
    """Have the interpreter look for no reference cycles; what nothing refers to is freed as ever.

    It looks through all objects at once and keeps its lock meanwhile: the decision "No garbage is collected while the
    machine stands still".
    """
    return _COLLECTOR.held(_disable_collector)


def _shorten_interval(seconds: float) -> Undo:
    before = sys.getswitchinterval()
    sys.setswitchinterval(min(seconds, before))
    return partial(sys.setswitchinterval, before)


def _disable_collector() -> Undo:
    if not gc.isenabled():
        return _nothing
    gc.disable()
    return gc.enable


def _nothing() -> None:
    return


# Of the process there is one, so of each of these there is, too.
_INTERVAL = HeldSetting()
_COLLECTOR = HeldSetting()
