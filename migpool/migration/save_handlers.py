"""What the effects of a job mean at the source: reads, credits, sends.

Guarantees:

1. A chunk is sent from the buffer that the device read into; nothing is copied or queued. Without multifd channels it
   goes into the main channel, in a PART section of its own, and the device's config into the END section.
2. A chunk is sent only after the destination has granted its index; without credits, at once.
3. Every wait here ends when the switch is thrown. A job that nobody waits in is carried on then, or when its credit
   comes: exactly once.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from migpool.core import returned
from migpool.core.buffers import BufferPool, Chunk, Conduit
from migpool.core.cancel import CancelSwitch
from migpool.core.device_calls import of
from migpool.core.effects import (
    Acquire,
    Credit,
    Effect,
    ReadState,
    Release,
    SaveConfig,
    Send,
    SendAhead,
    SendConfig,
    SendPart,
    SendSection,
)
from migpool.core.handlers import Handlers, Ready
from migpool.core.machine import Slot
from migpool.core.own_effects import SaveSetup
from migpool.errors import DeviceError
from migpool.migration.sections import config_section, state_section
from migpool.transport.channel_group import ChannelGroup
from migpool.transport.main_channel import MainChannel
from migpool.wire.devicestate import CHUNK_HEADER_SIZE, DEVICE_STATE_VERSION, HEADER_SIZE, DeviceStateHeader
from migpool.wire.records import CONFIG_FRAME, data_record, end_payload, frame_config, largest_config, tagged_record
from migpool.wire.sections import section_part

UNLIMITED = 1 << 62


E = TypeVar("E", bound=Effect[Any])


class Gate:
    """Which chunks of one device may be sent.

    The limit only rises, and only the return path's thread sets it. A job looks at it without a lock: what it sees may
    be too low by a moment, never too high; only if it is too low does it take the lock and wait. Atomic: the read and
    the write of an attribute.
    """

    __slots__ = ("_changed", "_ready", "_switch", "_waiting", "limit")

    def __init__(self, switch: CancelSwitch, limit: int) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._switch = switch
        self._ready: dict[int, Ready] = {}
        self._waiting: set[int] = set()
        self.limit = limit

    def open(self, limit: int) -> None:
        """The destination grants the indices below ``limit``."""
        passed: list[Ready] = []
        with self._changed:
            if limit > self.limit:
                self.limit = limit
                self._changed.notify_all()
                passed = [self._ready.pop(index) for index in sorted(self._ready) if index < limit]
        for ready in passed:
            ready(limit)

    def wait(self, index: int) -> int:
        """Return the limit once ``index`` has been granted."""
        if index < self.limit:
            return self.limit
        with self._changed:
            self._waiting.add(index)
            while index >= self.limit:
                self._switch.check()
                self._changed.wait()
            self._waiting.discard(index)
        return self.limit

    @property
    def waiting(self) -> int:
        """The lowest index that a job waits with; -1 if none waits."""
        with self._changed:
            return min((*self._waiting, *self._ready), default=-1)

    def passed_or_call(self, index: int, ready: Ready) -> int | None:
        """Return the limit if ``index`` has been granted; if not, have ``ready`` called when it is."""
        if index < self.limit:
            return self.limit
        with self._changed:
            # Under the lock, as the callback is taken out: either it is refused here or called there.
            self._switch.check()
            if index < self.limit:
                return self.limit
            self._ready[index] = ready
        return None

    def wake(self) -> None:
        """Have a waiting job look at the switch."""
        with self._changed:
            left = list(self._ready.values())
            self._ready.clear()
            self._changed.notify_all()
        for ready in left:
            ready()


class Gates:
    """A gate for each device whose state crosses over the multifd channels.

    Arguments:
        slots: the devices, in the order in which both ends count them.
        switch: ends every wait at a gate.
        credited: whether the destination grants credits; without them every gate stands open.
        open_for: the numbers of other slots that have jobs, whose gates always do.
    """

    def __init__(
        self, slots: Sequence[Slot], switch: CancelSwitch, *, credited: bool, open_for: Iterable[int] = ()
    ) -> None:
        self._slots = slots
        self._gates = [Gate(switch, 0 if credited else UNLIMITED) for _ in self._slots]
        self.of = {slot.number: gate for slot, gate in zip(self._slots, self._gates, strict=True)}
        self.of |= {number: Gate(switch, UNLIMITED) for number in open_for}
        switch.on_cancel(self._wake)

    def grant(self, place: int, limit: int) -> bool:
        """Open the gate of the device at ``place``; returns whether there is such a device."""
        if place >= len(self._gates):
            return False
        self._gates[place].open(limit)
        return True

    def waiting(self) -> str:
        """A device and the chunk that it has no room for, in words; empty if none waits."""
        for slot, gate in zip(self._slots, self._gates, strict=True):
            index = gate.waiting
            if index >= 0:
                return f"{slot.name}, chunk {index}"
        return ""

    def _wake(self) -> None:
        for gate in self._gates:
            gate.wake()


class _Outlet:
    """What a device's chunks are sent with: its header, and one list for all of them, since a new one a chunk would be
    garbage in the data path."""

    __slots__ = ("header", "vectors")

    def __init__(self, slot: Slot) -> None:
        self.header = DeviceStateHeader(slot.device.idstr, slot.device.instance_id)
        self.vectors: list[bytes | bytearray | memoryview] = [self.header.buffer, b""]


class SaveHandlers:
    """Performs the effects of the save jobs.

    Arguments:
        slots: the devices whose state crosses over the multifd channels.
        gates: the credits.
        group: the multifd channels; there may be none.
        main: the main channel.
        pool: the buffers that devices read into: one a running job.
        bytes_of: counts the bytes of each slot's state and config as they go.
        config_of: notes how many of them are its config.
        omitted: notes the slots of optional devices that needed no config.
        splice: whether state moves into the channels by splice(2) where a device allows it.
        lanes: by slot number, how many jobs save a device at once, where that is more than one.
        on_main: the numbers of the slots that have jobs and whose state crosses on the main channel.
    """

    def __init__(
        self,
        slots: Sequence[Slot],
        gates: Gates,
        group: ChannelGroup,
        main: MainChannel,
        pool: BufferPool,
        bytes_of: dict[int, int],
        config_of: dict[int, int],
        omitted: set[int],
        *,
        splice: bool,
        lanes: Mapping[int, int] | None = None,
        on_main: Collection[int] = (),
    ) -> None:
        self._on_main = on_main
        self._group = group
        self._main = main
        self._pool = pool
        self._splice = splice and bool(group)
        self._conduits: list[Conduit] = []
        self._gates = gates.of
        self._bytes_of = bytes_of
        self._config_of = config_of
        self._omitted = omitted
        self._outlets = {slot.number: _Outlet(slot) for slot in slots}
        self._lanes = lanes or {}
        self._lane_outlets = {
            (slot.number, lane): _Outlet(slot) for slot in slots for lane in range(self._lanes.get(slot.number, 0))
        }
        self._counting = threading.Lock()

    def handlers(self) -> Handlers:
        """What each effect means here."""
        handlers = Handlers()
        handlers.on(Acquire, self._acquire)
        handlers.on(ReadState, self._move_state if self._splice else self._read_state)
        handlers.on(Credit, self._credit)
        handlers.on_call(Credit, self._credit_or_call)
        handlers.on(Send, self._either(self._send_or_splice if self._splice else self._send, self._write))
        handlers.on(SendAhead, self._either(self._send_ahead, self._write_part))
        handlers.on(SendConfig, self._either(self._send_config, self._write_config))
        handlers.on(SendPart, self._send_part)
        handlers.on(Release, self._release)
        handlers.on(SaveConfig, self._save_config)
        handlers.on(SendSection, self._send_section)
        handlers.on(SaveSetup, _save_setup)
        return handlers

    def _either(self, send: Callable[[E], None], write: Callable[[E], None]) -> Callable[[E], None]:
        """What sends a device's state, over the multifd channels or on the main one."""
        on_main = self._on_main
        if not on_main or not self._outlets:
            return write if on_main else send

        def choose(effect: E) -> None:
            (write if effect.slot.number in on_main else send)(effect)

        return choose

    def _acquire(self, effect: Acquire) -> Chunk | Conduit:
        number = effect.slot.number
        direct = self._splice and number not in self._lanes and number not in self._on_main
        if direct and _splice_fd(effect.slot) is not None:
            conduit = Conduit(self._pool.size)
            self._conduits.append(conduit)
            return conduit
        return self._pool.take()

    def _release(self, effect: Release) -> None:
        if not isinstance(effect.chunk, Conduit):
            self._pool.give_back(effect.chunk)

    def _read_state(self, effect: ReadState) -> int:
        slot = effect.slot
        chunk: Chunk = effect.chunk  # type: ignore[assignment]  # it is a conduit only where something is spliced
        came = slot.device.save_state(chunk.buffer)
        if came.__class__ is not int or not 0 <= came <= chunk.size:  # the data path: what is right costs no call
            came = returned.filled(slot, "save_state", came, chunk.size)
        chunk.length = came
        return came

    def _move_state(self, effect: ReadState) -> int:
        chunk = effect.chunk
        if not isinstance(chunk, Conduit):
            return self._read_state(effect)
        fd = _splice_fd(effect.slot)
        if fd is None:
            raise DeviceError("its descriptor for splice has gone while its state was read")
        chunk.length = os.splice(fd, chunk.inlet, chunk.size)
        return chunk.length

    def _credit(self, effect: Credit) -> int:
        return self._gates[effect.slot.number].wait(effect.index)

    def _credit_or_call(self, effect: Credit, ready: Ready, *, leave: bool) -> int | None:
        del leave  # no other credit is worth waiting for
        return self._gates[effect.slot.number].passed_or_call(effect.index, ready)

    def _send(self, effect: Send) -> None:
        slot, index = effect.slot, effect.index
        chunk: Chunk = effect.chunk  # type: ignore[assignment]  # as in ``_read_state``
        number, length = slot.number, chunk.length
        outlet = self._outlets[number]
        # The header's ``pack``, written out: this is the data path.
        outlet.header.write(length + CHUNK_HEADER_SIZE, DEVICE_STATE_VERSION, index, 0)
        outlet.vectors[1] = chunk.buffer if length == chunk.size else chunk.payload
        self._group.send(slot.name, index, outlet.vectors, HEADER_SIZE + length)
        self._bytes_of[number] += length

    def _send_or_splice(self, effect: Send) -> None:
        number, chunk = effect.slot.number, effect.chunk
        if not isinstance(chunk, Conduit):
            self._send(effect)
            return
        header = self._outlets[number].header
        header.pack(effect.index, chunk.length)
        self._group.send(effect.slot.name, effect.index, [header.buffer], chunk.length, chunk.outlet)
        self._bytes_of[number] += chunk.length

    def _send_config(self, effect: SendConfig) -> None:
        number, config = effect.slot.number, effect.config
        if len(config) > largest_config(self._pool.size):
            raise DeviceError(
                f"its config of {len(config)} bytes does not fit into a chunk of {self._pool.size}: "
                "raise the chunk size or the memory budget"
            )
        size = len(config) + CONFIG_FRAME
        header = self._outlets[number].header
        header.pack(effect.index, size, config=True)
        self._group.send(effect.slot.name, effect.index, [header.buffer, *frame_config(config)], HEADER_SIZE + size)
        self._bytes_of[number] += len(config)
        self._group.done(effect.slot.name)

    def _send_ahead(self, effect: SendAhead) -> None:
        number, index, chunk = effect.slot.number, effect.index, effect.chunk
        outlet = self._lane_outlets[number, effect.lane]
        outlet.header.pack(index, chunk.length)
        outlet.vectors[1] = chunk.buffer if chunk.length == chunk.size else chunk.payload
        self._group.send(effect.slot.name, index, outlet.vectors, HEADER_SIZE + chunk.length)
        with self._counting:  # the device's other jobs count, too
            self._bytes_of[number] += chunk.length

    def _write_part(self, effect: SendAhead) -> None:
        number, chunk = effect.slot.number, effect.chunk
        self._main.write(
            section_part(effect.slot.section_id, [*tagged_record(effect.index, chunk.payload), end_payload()])
        )
        self._bytes_of[number] += chunk.length

    def _send_part(self, effect: SendPart) -> None:
        number, part = effect.slot.number, effect.part
        header = self._outlets[number].header
        header.pack(effect.index, len(part), config=effect.last)
        self._group.send(effect.slot.name, effect.index, [header.buffer, part], HEADER_SIZE + len(part))
        self._bytes_of[number] += len(part)
        if effect.last:
            self._group.done(effect.slot.name)

    def _write(self, effect: Send) -> None:
        number = effect.slot.number
        chunk: Chunk = effect.chunk  # type: ignore[assignment]  # as in ``_read_state``
        self._main.write(section_part(effect.slot.section_id, [*data_record(chunk.payload), end_payload()]))
        self._bytes_of[number] += chunk.length

    def _write_config(self, effect: SendConfig) -> None:
        self._main.write(state_section(effect.slot, effect.config))
        self._bytes_of[effect.slot.number] += len(effect.config)

    def _save_config(self, effect: SaveConfig) -> bytes | None:
        slot = effect.slot
        if slot.device.optional and not returned.truth(slot, "needed", slot.device.needed()):
            self._omitted.add(slot.number)
            return None
        config = returned.content(slot, "save_config", slot.device.save_config())
        self._config_of[effect.slot.number] = len(config)
        return config

    def _send_section(self, effect: SendSection) -> None:
        self._main.write(config_section(effect.slot, effect.config))
        self._bytes_of[effect.slot.number] += len(effect.config)

    def close(self) -> None:
        """Close the conduits, also those of jobs that were ended half-way."""
        for conduit in self._conduits:
            conduit.close()
        self._conduits.clear()


def _save_setup(effect: SaveSetup) -> bytes:
    return returned.content(effect.slot, "save_setup", effect.slot.device.save_setup())


def _splice_fd(slot: Slot) -> int | None:
    return of(slot, "splice_fd", lambda: returned.descriptor(slot, "splice_fd", slot.device.splice_fd()))
