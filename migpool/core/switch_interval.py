"""The interpreter's switch interval during migrations."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock


class SwitchInterval:
    """Holds the process's switch interval down while any migration runs, and then puts it back.

    To get the interpreter lock back after a blocking call takes up to a switch interval, if another thread computes:
    the decision "The interpreter's switch interval is 0.1 ms while a migration runs".
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._users = 0
        self._before = 0.0

    @contextmanager
    def held(self, seconds: float) -> Iterator[None]:
        """Hold it at ``seconds`` or lower; 0 leaves it alone. With several users the first one's value holds."""
        if not seconds:
            yield
            return
        with self._lock:
            if not self._users:
                self._before = sys.getswitchinterval()
                sys.setswitchinterval(min(seconds, self._before))
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    sys.setswitchinterval(self._before)


SWITCH_INTERVAL = SwitchInterval()
"""The interpreter has one switch interval, so the process has one of these."""
