"""Which devices have been loaded, for those that must be loaded after them.

Guarantee: a job that waits here is woken, or carried on by the thread that loads the last device it waits for; or by
the switch.
"""

from __future__ import annotations

import threading

from migpool.core.cancel import CancelSwitch
from migpool.core.effects import AfterOthers, SayLoaded
from migpool.core.handlers import Handlers, Ready


class LoadOrder:
    """The devices whose config has been loaded. ``switch``: ends every wait."""

    def __init__(self, switch: CancelSwitch) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._switch = switch
        self._loaded: set[int] = set()
        self._ready: dict[AfterOthers, Ready] = {}
        switch.on_cancel(self._wake)

    def handle(self, handlers: Handlers) -> None:
        """Say what the two effects mean."""
        handlers.on(SayLoaded, self._note)
        handlers.on(AfterOthers, self._wait)
        handlers.on_call(AfterOthers, self._loaded_or_call)

    def _note(self, effect: SayLoaded) -> None:
        with self._changed:
            self._loaded.add(effect.slot.number)
            ready = [self._ready.pop(waiting) for waiting in list(self._ready) if self._may(waiting)]
            self._changed.notify_all()
        for carry_on in ready:
            carry_on(True)

    def _wait(self, effect: AfterOthers) -> bool:
        with self._changed:
            while not self._may(effect):
                self._switch.check()
                self._changed.wait()
        return True

    def _loaded_or_call(self, effect: AfterOthers, ready: Ready, *, leave: bool) -> bool | None:
        del leave  # no other device is worth waiting for
        with self._changed:
            # Under the lock, as the callback is taken out: either it is refused here or called there.
            self._switch.check()
            if self._may(effect):
                return True
            self._ready[effect] = ready
        return None

    def _may(self, effect: AfterOthers) -> bool:
        return self._loaded.issuperset(effect.slot.after)

    def _wake(self) -> None:
        with self._changed:
            ready = list(self._ready.values())
            self._ready.clear()
            self._changed.notify_all()
        for carry_on in ready:
            carry_on()
