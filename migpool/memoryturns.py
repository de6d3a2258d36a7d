"""The turns of pre-copy for a machine with memory: the memory's is a round of jobs, every other device's its own."""

from __future__ import annotations

from collections.abc import Callable

from migpool.device import Pending
from migpool.interpreter import Job
from migpool.machine import Slot
from migpool.precopy import Turns
from migpool.ramsending import MemorySending

__all__ = ["MemoryTurns"]


class MemoryTurns:
    """See :class:`~migpool.precopy.Turns`.

    Arguments:
        slot: the memory's.
        memory: sends it.
        run: runs jobs under the threading model, and returns when all have ended.
        others: the other devices' turns.
    """

    def __init__(self, slot: Slot, memory: MemorySending, run: Callable[[list[Job]], None], others: Turns) -> None:
        self._slot = slot
        self._memory = memory
        self._run = run
        self._others = others

    def save(self, slot: Slot, precopy: int) -> int:
        """The memory: send every page that is to be sent, once, then see what has been written meanwhile."""
        if slot is not self._slot:
            return self._others.save(slot, precopy)
        sent = self._memory.pages.left
        self._run(self._memory.jobs())
        self._memory.end_round()
        self._memory.look()
        return sent

    def pending(self, slot: Slot) -> Pending:
        """What is left of the memory as of the last look; of another device, what it says."""
        return Pending(self._memory.pages.left) if slot is self._slot else slot.device.pending()

    def initial_sent(self, slot: Slot) -> None:
        """The memory has no initial data."""
        if slot is not self._slot:
            self._others.initial_sent(slot)

    def pause(self, seconds: float) -> None:
        """As the others do."""
        self._others.pause(seconds)
