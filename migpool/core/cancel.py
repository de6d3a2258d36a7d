"""One way to stop everything: a switch that each wait of a migration looks at.

Guarantees:

1. It is thrown once; the first reason stays.
2. When it is thrown, every hook runs exactly once, also one that is added later, and also if another hook fails.
3. After ``cancel`` has returned, every later ``check`` raises. It takes no lock. Atomic: the read and the write of
   ``thrown``, which is written after the reason.

The hooks end the waits that do not look at the switch by themselves: a read of a socket, a condition, a device.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock

from migpool.errors import Cancelled


class CancelSwitch:
    """Thrown when a migration is cancelled or has failed."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._hooks: list[Callable[[], None]] = []
        self.thrown = False
        self.reason: BaseException | None = None

    def on_cancel(self, hook: Callable[[], None]) -> None:
        """Have ``hook`` called when the switch is thrown; at once if it has been. It must not block."""
        with self._lock:
            if not self.thrown:
                self._hooks.append(hook)
                return
        hook()

    def cancel(self, reason: BaseException | None = None) -> bool:
        """Throw the switch.

        Arguments:
            reason: why; ``Cancelled()`` without it.

        Returns:
            Whether this call threw it, and so whether its reason is the one that counts.
        """
        with self._lock:
            if self.thrown:
                return False
            self.reason = reason or Cancelled("the migration was cancelled")
            self.thrown = True
            hooks, self._hooks = self._hooks, []
        for hook in hooks:
            try:
                hook()
            except Exception:  # noqa: BLE001 -- the other waits must still end; the reason is already known
                pass
        return True

    def check(self) -> None:
        """Return if the switch has not been thrown.

        Raises:
            Cancelled: it has.
        """
        if self.thrown:
            raise Cancelled("the migration was cancelled") from self.reason
