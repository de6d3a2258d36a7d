"""Devices' turns in a round of pre-copy, while the machine runs: over the main channel, or as jobs over multifd."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from migpool.core import returned
from migpool.core.buffers import Chunk
from migpool.core.cancel import CancelSwitch
from migpool.core.effects import EndLiveTurn, IterateInto
from migpool.core.interpreter import Interpreter, Job
from migpool.core.jobs import save_live
from migpool.core.machine import Slot
from migpool.core.own_effects import Iterate
from migpool.device import Pending
from migpool.precopy.rounds import Saved
from migpool.transport.main_channel import MainChannel
from migpool.wire.records import data_record, end_payload, initial_data_sent
from migpool.wire.sections import section_part


class DeviceTurns:
    """Reads and sends what devices can save while the machine runs: :class:`~migpool.precopy.rounds.Turns`.

    Arguments:
        main: the main channel.
        chunk: the buffer that devices read into, one after the other.
        interpreter: performs it.
        switch: ends a pause.
        bytes_of: counts the bytes of each slot's state as they go.
        precopied: counts those of them that go from here, while the machine runs.
    """

    at_once = False

    def __init__(
        self,
        main: MainChannel,
        chunk: Chunk,
        interpreter: Interpreter,
        switch: CancelSwitch,
        bytes_of: dict[int, int],
        precopied: dict[int, int],
    ) -> None:
        self._main = main
        self._chunk = chunk
        self._interpreter = interpreter
        self._switch = switch
        self._bytes_of = bytes_of
        self._precopied = precopied
        self._ending = threading.Event()
        switch.on_cancel(self._ending.set)
        interpreter.handlers.on(Iterate, self._iterate)

    def pending(self, slot: Slot) -> Pending:
        """Ask the device."""
        return returned.pending(slot, "pending", slot.device.pending())

    def save(self, wanted: Sequence[tuple[Slot, int]]) -> Sequence[Saved]:
        """Save about as many bytes of each device as are given with it, or less if it has less just now."""
        return [Saved(moved, moved) for moved in (self._save(slot, precopy) for slot, precopy in wanted)]

    def _save(self, slot: Slot, precopy: int) -> int:
        moved = 0
        while moved < precopy and (length := self._interpreter.once(Iterate(slot))):
            moved += length
        return moved

    def initial_sent(self, slot: Slot) -> None:
        """Say that all initial data of the device has been sent; the destination answers when it has that of all."""
        self._main.write(section_part(slot.section_id, [initial_data_sent()]))

    def pause(self, seconds: float) -> None:
        """Wait, or raise if the migration is cancelled meanwhile."""
        self._ending.wait(seconds)
        self._switch.check()

    def _iterate(self, effect: Iterate) -> int:
        slot, chunk = effect.slot, self._chunk
        length = iterated(slot, chunk)
        if length:
            self._main.write(section_part(slot.section_id, [*data_record(chunk.payload), end_payload()]))
            self._bytes_of[slot.number] += length
            self._precopied[slot.number] += length
        return length


class LiveTurns(DeviceTurns):
    """The same as jobs under the threading model, over the multifd channels, all devices at once.

    Arguments:
        main, chunk, interpreter, switch, bytes_of, precopied: as for :class:`DeviceTurns`.
        run: has the threading model run some jobs, and returns when all have ended.

    Attributes:
        following: for each slot's number, the index of the device's next chunk.
    """

    at_once = True

    def __init__(
        self,
        main: MainChannel,
        chunk: Chunk,
        interpreter: Interpreter,
        switch: CancelSwitch,
        bytes_of: dict[int, int],
        precopied: dict[int, int],
        run: Callable[[list[Job]], None],
    ) -> None:
        super().__init__(main, chunk, interpreter, switch, bytes_of, precopied)
        self._run = run
        self._moved: dict[int, int] = {}
        self.following: dict[int, int] = {}
        interpreter.handlers.on(IterateInto, lambda effect: iterated(effect.slot, effect.chunk))
        interpreter.handlers.on(EndLiveTurn, self._end_turn)

    def save(self, wanted: Sequence[tuple[Slot, int]]) -> Sequence[Saved]:
        self._moved.clear()
        jobs = []
        for slot, precopy in wanted:
            if precopy > 0:
                # The destination has a job for the device ready before its chunks come.
                self._main.write(section_part(slot.section_id, [end_payload()]))
                steps = save_live(slot, self.following.get(slot.number, 0), precopy)
                jobs.append(Job("save live", steps, slot))
        self._run(jobs)
        return [Saved(moved, moved) for moved in (self._moved.get(slot.number, 0) for slot, _ in wanted)]

    def _end_turn(self, effect: EndLiveTurn) -> None:
        # Atomic: each store; a device has one job a round.
        number = effect.slot.number
        self.following[number] = effect.index
        self._moved[number] = effect.moved
        self._precopied[number] += effect.moved


def iterated(slot: Slot, chunk: Chunk) -> int:
    """Have a device that runs fill a chunk.

    Returns:
        How many bytes it has filled, which is the chunk's length.

    Raises:
        DeviceError: it says that it has filled more than there is.
    """
    chunk.length = returned.filled(slot, "iterate", slot.device.iterate(chunk.buffer), chunk.size)
    return chunk.length
