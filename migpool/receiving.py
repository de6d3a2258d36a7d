"""What the effects of a job mean at the destination: chunks in order, writes, credits given back. And the receivers.

Guarantees:

1. A channel's thread receives into a buffer of the budget and hands it over; it never waits for memory, since every
   chunk that may come has its room reserved (``window.py``).
2. A chunk goes straight from the socket into the buffer that the device is given.
3. A job that waits for a chunk is woken, or carried on by the receiver itself, exactly when that chunk is there.
4. When the switch is thrown every wait here ends; so does a job that nobody waits in.

Lock order: a device's lock, then nothing. The windows' lock and the return path's are taken alone.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Sequence
from time import monotonic_ns
from typing import TYPE_CHECKING

from migpool.answering import ENDED_EARLY
from migpool.cancel import CancelSwitch
from migpool.channel.sockets import read_exactly
from migpool.effects import LoadConfig, Loaded, NextChunk, Wait, WriteState
from migpool.errors import DeviceError, MemoryLimitExceeded, MigpoolError, PeerError, ProtocolError
from migpool.interpreter import Handlers
from migpool.liveness import Liveness
from migpool.machine import Machine, Slot
from migpool.memory import BufferPool, Chunk
from migpool.trace import Tracer, pack_span
from migpool.window import Grant, Reassembly, Windows
from migpool.wire.devicestate import HEADER_SIZE, DeviceStateParser
from migpool.wire.multifd import DEVICE_STATE, PREFIX_SIZE, SYNC, header_rest, packet_flags
from migpool.wire.records import config_within

if TYPE_CHECKING:
    from migpool.ramreceiving import MemoryReceiving

__all__ = ["Receiving"]

UNLIMITED = 1 << 62
FLAGS_LOW_BYTE = 11


class _Inbox:
    """One device's chunks, and the job that waits for the next one."""

    __slots__ = ("arrived", "lock", "order", "position", "ready", "slot", "starved")

    def __init__(self, slot: Slot, position: int) -> None:
        self.slot = slot
        self.position = position
        self.order: Reassembly[Chunk] = Reassembly()
        # Taken by itself where nobody waits: a condition's own way in is Python code, on every chunk.
        self.lock = threading.Lock()
        self.arrived = threading.Condition(self.lock)
        self.ready: Callable[[], None] | None = None
        self.starved = False


class Receiving:
    """Performs the effects of the load jobs, and runs the channels' receivers.

    Arguments:
        machine: whose devices are loaded.
        pool: the budget's buffers.
        grant: makes a grant known to the source.
        tracer: a received payload leaves a span.
        switch: ends every wait.
        liveness: hears of every chunk that comes or is loaded.
        memory: takes the pages; ``None`` for a machine without memory.
    """

    def __init__(
        self,
        machine: Machine,
        pool: BufferPool,
        grant: Callable[[Grant], None],
        tracer: Tracer,
        switch: CancelSwitch,
        liveness: Liveness,
        memory: MemoryReceiving | None = None,
    ) -> None:
        self._liveness = liveness
        self._memory = memory
        self._pool = pool
        self._windows: Windows | None = None
        self._windows_lock = threading.Lock()
        self._grant = grant
        self._tracer = tracer
        self._switch = switch
        self._inboxes = {slot.number: _Inbox(slot, place) for place, slot in enumerate(machine.iterable)}
        self._parser = DeviceStateParser(
            {(box.slot.device.idstr, box.slot.device.instance_id): box for box in self._inboxes.values()},
            limit=pool.size,
        )
        self._open = 0
        self._open_lock = threading.Lock()
        self.bytes_received = 0
        switch.on_cancel(self._wake)

    def use_credits(self, windows: Windows) -> None:
        """The source knows credits: bound what it may send. Called before the first chunk is asked for."""
        with self._windows_lock:
            self._windows = windows
        for grant in windows.opening():
            self._grant(grant)

    def handlers(self) -> Handlers:
        """What each effect means here; ``NextChunk`` is answered by :meth:`take` and :meth:`take_or_call`."""
        handlers = Handlers()
        handlers.on(WriteState, self._write_state)
        handlers.on(Loaded, self._loaded)
        handlers.on(LoadConfig, self._load_config)
        return handlers

    # ------------------------------------------------------------------ chunks, in order

    def take(self, effect: NextChunk) -> Chunk:
        """Wait for the chunk on the calling thread."""
        box = self._inboxes[effect.slot.number]
        with box.lock:
            chunk = box.order.take()
            while chunk is None:
                self._switch.check()
                box.starved = True
                box.arrived.wait()
                chunk = box.order.take()
            box.starved = False
        return chunk

    def take_or_call(self, effect: NextChunk, ready: Callable[[], None], *, leave: bool) -> Chunk | None:
        """Return the chunk if it is there; if not, have the receiver that brings it call ``ready``.

        Arguments:
            leave: the caller would rather have somebody else carry on, even if the chunk is there, as long as another
                one of this device is sure to come and so to bring somebody. Without that, one receiver could be kept
                by a device for long, with other devices' chunks unread on its channel.
        """
        box = self._inboxes[effect.slot.number]
        with box.lock:
            # The switch is looked at under the lock: its hook takes the callback under the same one, so a callback is
            # either refused here or called there.
            if self._switch.thrown:
                self._switch.check()
            chunk = None if leave and self._will_come(box) else box.order.take()
            box.starved = chunk is None
            if chunk is None:
                box.ready = ready
        return chunk

    def _will_come(self, box: _Inbox) -> bool:
        """Whether another chunk is sure to come: the source may send one, and the last has not come yet."""
        windows = self._windows
        return windows is not None and not box.order.ended and box.order.received < windows.limit(box.position)

    def _deliver(self, box: _Inbox, chunk: Chunk) -> None:
        windows = self._windows
        limit = UNLIMITED
        grants: Sequence[Grant] = ()
        ready = None
        if windows is not None:
            with self._windows_lock:
                limit = windows.limit(box.position)
                grants = windows.received(box.position)
        with box.lock:
            is_next = box.order.put(chunk.index, chunk, chunk.last, limit)
            if is_next or box.order.available:
                ready, box.ready = box.ready, None
                if is_next and box.starved and ready is None:
                    box.arrived.notify()
        for grant in grants:
            self._grant(grant)
        if ready is not None:
            ready()

    # ------------------------------------------------------------------ effects

    def _write_state(self, effect: WriteState) -> None:
        effect.slot.device.load_state(effect.chunk.payload)

    def _loaded(self, effect: Loaded) -> None:
        # The room first, then the credit: when the chunk that it allows arrives, there is a buffer for it.
        self._pool.give_back(effect.chunk)
        self._liveness.progress = monotonic_ns()
        windows = self._windows
        if windows is None:
            return
        position = self._inboxes[effect.slot.number].position
        with self._windows_lock:
            grants = windows.finished(position) if effect.last else windows.loaded(position)
        for grant in grants:
            self._grant(grant)

    def _load_config(self, effect: LoadConfig) -> None:
        effect.slot.device.load_config(effect.config)

    # ------------------------------------------------------------------ receivers

    def receivers(self, channels: Sequence[socket.socket]) -> list[Callable[[], None]]:
        """What the channels' threads run, one each. An error of theirs throws the switch."""
        self._open = len(channels)

        def receiver(number: int, channel: socket.socket) -> Callable[[], None]:
            def receive() -> None:
                try:
                    self._receive(channel)
                except MigpoolError as error:
                    self._switch.cancel(_on_channel(error, number))
                except Exception as error:  # noqa: BLE001 -- it must reach the migration, not die with the thread
                    self._switch.cancel(error)

            return receive

        return [receiver(number, channel) for number, channel in enumerate(channels)]

    def _receive(self, channel: socket.socket) -> None:
        memory = self._memory
        header = bytearray(HEADER_SIZE if memory is None else max(HEADER_SIZE, memory.header_size))
        record = self._tracer.recorder()
        parse = self._parser.parse
        liveness = self._liveness
        idle = self._idle
        pool = self._pool
        offset = 64  # the initial packet has been read
        while True:
            got = read_exactly(channel, header, HEADER_SIZE, idle)
            if got < HEADER_SIZE:
                break
            if not header[FLAGS_LOW_BYTE] & DEVICE_STATE:
                if memory is None:
                    offset += self._skip_sync(channel, packet_flags(header, offset), offset, idle)
                    continue
                passed, size = memory.receive(channel, header, HEADER_SIZE, offset, idle, record)
                offset += passed
                self.bytes_received += size
                liveness.progress = monotonic_ns()
                continue
            box, index, size, config = parse(header, offset)
            try:
                chunk = pool.take()
            except MemoryLimitExceeded as error:
                raise MemoryLimitExceeded(self._over_budget(box.slot, index)) from error
            begin = monotonic_ns()
            if size and read_exactly(channel, chunk.buffer, size, idle) < size:
                raise PeerError(f"{box.slot.name}, chunk {index}: the source closed the channel in the middle of it")
            end = monotonic_ns()
            record(pack_span(Wait.RECEIVE, box.slot.number, index, begin, end))
            chunk.length = size
            chunk.index = index
            if config:
                chunk.last = True
                within = config_within(chunk.payload, offset + HEADER_SIZE)
                chunk.begin = (size - len(within)) // 2
                chunk.length = len(within)
            liveness.progress = end
            self.bytes_received += size
            offset += HEADER_SIZE + size
            try:
                self._deliver(box, chunk)
            except DeviceError as error:
                raise error.located(box.slot.name, index) from None
        if got:
            raise ProtocolError(offset, "packet header", f"{HEADER_SIZE} bytes, found the end after {got}")
        self._ended()

    def _skip_sync(self, channel: socket.socket, flags: int, offset: int, idle: Callable[[], None]) -> int:
        if not flags & SYNC:
            raise ProtocolError(offset, "multifd packet", "device state, found RAM pages: this machine has no RAM")
        rest = PREFIX_SIZE + header_rest(flags) - HEADER_SIZE
        if read_exactly(channel, bytearray(rest), rest, idle) < rest:
            raise ProtocolError(offset, "multifd packet", "a whole SYNC packet, found the end of the channel")
        return HEADER_SIZE + rest

    def _over_budget(self, slot: Slot, index: int) -> str:
        why = "the source sends more than it was granted"
        if self._windows is None:
            why = "the source knows no credits: raise the memory budget"
        return (
            f"{slot.name}, chunk {index}: no room, all {self._pool.limit} chunks of {self._pool.size} bytes hold state "
            f"that is not loaded yet; {why}"
        )

    def _ended(self) -> None:
        """A channel has ended in good order; after the last one nothing more can come."""
        with self._open_lock:
            self._open -= 1
            if self._open:
                return
        missing = self.missing()
        if missing:
            raise PeerError(f"{ENDED_EARLY} ({missing})")

    def starved(self) -> str:
        """The first device whose job waits for a chunk, and which; empty if none does."""
        return self._first_missing(starved=True)

    def missing(self) -> str:
        """The first device that is not complete, and what it waits for; empty if all are."""
        return self._first_missing(starved=False)

    def _idle(self) -> None:
        self._liveness.idle(self.starved())

    def _first_missing(self, *, starved: bool) -> str:
        for box in self._inboxes.values():
            with box.lock:
                if starved and not box.starved:
                    continue
                if missing := box.order.missing():
                    return f"{box.slot.name}: {missing}"
        return ""

    def _wake(self) -> None:
        for box in self._inboxes.values():
            with box.lock:
                ready, box.ready = box.ready, None
                box.arrived.notify_all()
            if ready is not None:
                ready()


def _on_channel(error: MigpoolError, number: int) -> MigpoolError:
    """A protocol error alone does not say which of the channels its offset counts on."""
    if isinstance(error, ProtocolError):
        return ProtocolError(error.offset, f"channel {number}: {error.item}", error.expected)
    return error
