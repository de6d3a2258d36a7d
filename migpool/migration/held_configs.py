"""Configs that are loaded only when every iterable device has all its state.

Some machines need that: a device's config can touch another device, whose state must be there by then.

Guarantees:

1. Nobody waits here, so no thread is kept: a job that has loaded its device's state ends, and the last one to do so
   submits a job for each config. A single worker is enough.
2. The configs are submitted in the machine's order, once, and only if every device's state has been loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock

from migpool.core.effects import HoldConfig
from migpool.core.interpreter import Job
from migpool.core.jobs import load_config
from migpool.core.machine import Machine

__all__ = ["HeldConfigs"]


class HeldConfigs:
    """Keeps the configs of a machine's iterable devices until all of them are there.

    Arguments:
        machine: whose devices are loaded.
        submit: has a job run; it is called from within the last job that loads state.
    """

    def __init__(self, machine: Machine, submit: Callable[[Job], None]) -> None:
        self._slots = machine.iterable
        self._submit = submit
        self._lock = Lock()
        self._held: dict[int, HoldConfig] = {}

    def hold(self, effect: HoldConfig) -> None:
        """Keep the config of a device that has all its state; with the last one, have all of them loaded."""
        with self._lock:
            self._held[effect.slot.number] = effect
            complete = len(self._held) == len(self._slots)
        if not complete:
            return
        for slot in self._slots:
            held = self._held[slot.number]
            self._submit(Job("config", load_config(slot, held.config, held.index), slot))
