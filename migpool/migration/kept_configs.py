"""Configs on their way from the jobs that have them to the jobs that want them.

At the source, a device's config can be saved by a job of its own, and the one job that sends sections takes it. At the
destination some machines need every iterable device's state to be there before any config is loaded, since a device's
config can touch another device: the jobs that load state keep the configs, and jobs that begin later load them.

Guarantees:

1. A config is taken once, by whoever asks for it; who asks before it is there waits, or is ended by the switch.
2. ``complete`` is called once, by the thread that keeps the last config that is expected. What it submits finds every
   config there: so no thread is kept by a wait, and a single worker is enough for the destination.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from migpool.core.cancel import CancelSwitch
from migpool.core.effects import KeepConfig, TakeConfig
from migpool.core.handlers import Handlers
from migpool.core.machine import Slot


class KeptConfigs:
    """Keeps devices' configs until they are taken.

    Arguments:
        switch: ends every wait here.
        expected: the devices whose configs are kept.
        complete: called once all of them are, within the job that keeps the last one.
    """

    def __init__(
        self, switch: CancelSwitch, expected: Iterable[Slot] = (), complete: Callable[[], None] | None = None
    ) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._switch = switch
        self._expected = {slot.number for slot in expected}
        self._complete = complete
        self._configs: dict[int, KeepConfig] = {}
        switch.on_cancel(self._wake)

    def handle(self, handlers: Handlers) -> None:
        """Say what the two effects mean."""
        handlers.on(KeepConfig, self.keep)
        handlers.on(TakeConfig, self.take)

    def keep(self, effect: KeepConfig) -> None:
        """Keep a device's config until it is taken."""
        number = effect.slot.number
        with self._changed:
            self._configs[number] = effect
            self._expected.discard(number)
            complete = None
            if not self._expected:
                complete, self._complete = self._complete, None
            self._changed.notify_all()
        if complete is not None:
            complete()

    def take(self, effect: TakeConfig) -> bytes | None:
        """Wait for a device's config. The effect's index becomes that of the chunk that the config came in."""
        number = effect.slot.number
        with self._changed:
            while number not in self._configs:
                self._switch.check()
                self._changed.wait()
            kept = self._configs.pop(number)
        effect.index = kept.index
        return kept.config

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()
