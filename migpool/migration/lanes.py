"""Several jobs that save one device: whose turn it is to read, and which of them ends last.

Guarantees:

1. One job at a time reads a device, and the index of what it reads is given with the turn: so the order of the reads is
   the order of the indices, whichever job sends first.
2. Who waits for a turn gets one, or hears that the state has ended; the switch ends every wait.
3. Parts with tags need no turn: each is counted when it is there, and no tag is sent twice.
4. The config is saved by the last of the jobs that have read: when all state has been sent. One that begins only then
   has nothing to do, so nobody waits for a job that has no thread.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Mapping

from migpool.core import returned
from migpool.core.cancel import CancelSwitch
from migpool.core.effects import EndLane, EndTurn, SavePart, Turn
from migpool.core.handlers import Handlers, Ready
from migpool.device import DeviceError, Part, TaggedDevice

ENDED = -1


class _Reader:
    """Whose turn it is at one device, and which jobs are at it."""

    __slots__ = ("active", "busy", "changed", "done", "ended", "next", "tags", "waiting")

    def __init__(self) -> None:
        self.changed = threading.Condition(threading.Lock())
        self.waiting: deque[Ready] = deque()
        self.active: set[Turn | SavePart] = set()
        self.busy = self.ended = self.done = False
        self.next = 0
        self.tags: set[int] = set()


class Lanes:
    """Performs what the jobs of one device say to each other.

    Arguments:
        numbers: the slots that several jobs save.
        switch: ends every wait.
    """

    def __init__(self, numbers: Iterable[int], switch: CancelSwitch) -> None:
        self._readers = {number: _Reader() for number in numbers}
        self._switch = switch
        switch.on_cancel(self._wake)

    def handle(self, handlers: Handlers) -> None:
        """Say what the effects mean."""
        handlers.on(Turn, self._take)
        handlers.on_call(Turn, self._take_or_call)
        handlers.on(EndTurn, self._end_turn)
        handlers.on(EndLane, self._end_lane)
        handlers.on(SavePart, self._save_part)

    def begin_at(self, following: Mapping[int, int]) -> None:
        """Count on from these indices, by slot number; called before any job asks."""
        for number, reader in self._readers.items():
            reader.next = max(reader.next, following.get(number, 0))

    def _take(self, effect: Turn) -> int:
        reader = self._readers[effect.slot.number]
        with reader.changed:
            while reader.busy and not reader.ended:
                self._switch.check()
                reader.changed.wait()
            return self._given(reader, effect)

    def _take_or_call(self, effect: Turn, ready: Ready, *, leave: bool) -> int | None:
        del leave  # no other turn is worth waiting for
        reader = self._readers[effect.slot.number]
        with reader.changed:
            # Under the lock, as the callback is taken out: either it is refused here or called there.
            self._switch.check()
            if reader.busy and not reader.ended:
                reader.waiting.append(ready)
                return None
            return self._given(reader, effect)

    @staticmethod
    def _given(reader: _Reader, effect: Turn) -> int:
        if reader.ended:
            effect.index = ENDED
            return ENDED
        reader.active.add(effect)
        reader.busy = True
        effect.index = reader.next
        return reader.next

    def _end_turn(self, effect: EndTurn) -> None:
        reader = self._readers[effect.slot.number]
        with reader.changed:
            reader.busy = False
            if effect.length:
                reader.next += 1
            else:
                reader.ended = True
            woken = list(reader.waiting) if reader.ended else [reader.waiting.popleft()] if reader.waiting else []
            if reader.ended:
                reader.waiting.clear()
                reader.changed.notify_all()
            else:
                reader.changed.notify()
        for ready in woken:
            ready()  # it asks again: who asked meanwhile may have been given the turn

    def _save_part(self, effect: SavePart) -> Part | None:
        slot, chunk = effect.slot, effect.chunk
        device = slot.device
        assert isinstance(device, TaggedDevice)
        reader = self._readers[slot.number]
        with reader.changed:
            reader.active.add(effect)
        part = returned.part(slot, "save_part", device.save_part(chunk.buffer), chunk.size)
        if part is None:
            effect.index = ENDED
            return None
        chunk.length = part.length
        effect.index = part.tag
        with reader.changed:
            if part.tag in reader.tags:
                raise DeviceError(f"save_part has returned the tag {part.tag} twice").located_index(part.tag)
            reader.tags.add(part.tag)
            effect.number = reader.next
            reader.next += 1
        return part

    def _end_lane(self, effect: EndLane) -> int:
        reader = self._readers[effect.slot.number]
        with reader.changed:
            reader.active.discard(effect.turn)
            if reader.active or reader.done:
                return ENDED
            reader.done = True
            return reader.next

    def _wake(self) -> None:
        for reader in self._readers.values():
            with reader.changed:
                woken = list(reader.waiting)
                reader.waiting.clear()
                reader.changed.notify_all()
            for ready in woken:
                ready()
