"""A device's turn in a round of pre-copy, over the main channel: chunks as PART sections, while the machine runs."""

from __future__ import annotations

import threading

from migpool.core.buffers import Chunk
from migpool.core.cancel import CancelSwitch
from migpool.core.effects import Iterate
from migpool.core.interpreter import Interpreter
from migpool.core.machine import Slot
from migpool.device import Pending
from migpool.errors import DeviceError
from migpool.precopy.rounds import Turn
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
        return slot.device.pending()

    def save(self, slot: Slot, precopy: int) -> Turn:
        """Save about ``precopy`` bytes of a device's state, or less if it has less just now."""
        moved = 0
        while moved < precopy and (length := self._interpreter.once(Iterate(slot))):
            moved += length
        return Turn(moved, moved)

    def initial_sent(self, slot: Slot) -> None:
        """Say that all initial data of the device has been sent; the destination answers when it has that of all."""
        self._main.write(section_part(slot.number, [initial_data_sent()]))

    def pause(self, seconds: float) -> None:
        """Wait, or raise if the migration is cancelled meanwhile."""
        self._ending.wait(seconds)
        self._switch.check()

    def _iterate(self, effect: Iterate) -> int:
        slot, chunk = effect.slot, self._chunk
        length = slot.device.iterate(chunk.buffer)
        if not 0 <= length <= chunk.size:
            raise DeviceError(f"iterate says it filled {length} bytes of a buffer of {chunk.size}")
        if length:
            chunk.length = length
            self._main.write(section_part(slot.number, [*data_record(chunk.payload), end_payload()]))
            self._bytes_of[slot.number] += length
            self._precopied[slot.number] += length
        return length
