"""What the effects of a job mean at the destination, and what the channels' threads do.

Guarantees:

1. A channel's thread receives into a buffer of the budget and hands it over; it never waits for memory, since every
   chunk that may come has its room reserved (``migpool/flow/window.py``).
2. A chunk goes straight from the socket into the buffer that the device is given.
3. With ``splice`` it may go past that buffer, from the socket into the device; the room is kept for it all the same.
4. When the switch is thrown every wait here ends.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic_ns
from typing import TYPE_CHECKING

from migpool.core import returned
from migpool.core.buffers import BufferPool, Chunk
from migpool.core.cancel import CancelSwitch
from migpool.core.device_calls import of
from migpool.core.effects import EndParts, LoadConfig, Loaded, LoadPart, NextPart, Wait, WriteState
from migpool.core.handlers import Caller, Handlers
from migpool.core.machine import Slot
from migpool.core.own_effects import LoadIterated, LoadSetup
from migpool.core.trace import Tracer, pack_span
from migpool.device import TaggedDevice
from migpool.errors import DeviceError, MemoryLimitExceeded, MigpoolError, PeerGone, ProtocolError
from migpool.flow.window import Grant
from migpool.migration.chunk_queue import ChunkQueue, ChunkQueues
from migpool.migration.liveness import Liveness
from migpool.migration.load_order import LoadOrder
from migpool.migration.return_path_writer import ENDED_EARLY
from migpool.transport.sockets import WAIT_FOR_ALL, read_exactly, read_rest, waited
from migpool.transport.splice import SplicedChunk, cut_short
from migpool.wire.devicestate import HEADER_SIZE, DeviceStateParser
from migpool.wire.multifd import DEVICE_STATE, PREFIX_SIZE, SYNC, header_rest, packet_flags
from migpool.wire.records import config_within, tag_within

if TYPE_CHECKING:
    from migpool.ram.destination import RamDestination

FLAGS_LOW_BYTE = 11


class LoadHandlers:
    """Performs the effects of the load jobs, and runs the channels' receivers.

    Arguments:
        slots: the devices whose state comes over the multifd channels.
        pool: the budget's buffers.
        grant: makes a grant known to the source.
        tracer: a received payload leaves a span.
        switch: ends every wait.
        liveness: hears of every chunk that comes or is loaded.
        memory: takes the pages; ``None`` for a machine without memory.
        splice: whether a chunk may go from the socket into a device by splice(2), where the device allows it.

    Attributes:
        chunk_queues: what has come and is not loaded yet.
    """

    def __init__(
        self,
        slots: Sequence[Slot],
        pool: BufferPool,
        grant: Callable[[Grant], None],
        tracer: Tracer,
        switch: CancelSwitch,
        liveness: Liveness,
        memory: RamDestination | None = None,
        *,
        splice: bool = False,
    ) -> None:
        self._liveness = liveness
        self._memory = memory
        self._splice = splice
        self._pool = pool
        self._tracer = tracer
        self._switch = switch
        self.chunk_queues = ChunkQueues(slots, grant, switch, pool.give_back, pool.size)
        queues = self.chunk_queues.by_slot.values()
        self._parser = DeviceStateParser(
            {(queue.slot.device.idstr, queue.slot.device.instance_id): queue for queue in queues}, limit=pool.size
        )
        self._open = 0
        self._open_lock = threading.Lock()
        # A count for each channel, which its thread alone adds to: two threads that add to one lose some.
        self._received: list[int] = []
        # By slot, those that came on the main channel, which one thread reads.
        self._tags: defaultdict[int, set[int]] = defaultdict(set)

    def handlers(self) -> Handlers:
        """What each effect means here; ``NextChunk`` is answered by :attr:`chunk_queues`."""
        handlers = Handlers()
        handlers.on(WriteState, self._move_state if self._splice else self._write_state)
        handlers.on(NextPart, self.chunk_queues.take_part)
        part_or_call: Caller[NextPart, Chunk | bool] = self.chunk_queues.part_or_call
        handlers.on_call(NextPart, part_or_call)
        handlers.on(LoadPart, self._load_part)
        handlers.on(EndParts, self.chunk_queues.end_parts)
        handlers.on(Loaded, self.chunk_queues.loaded)
        handlers.on(LoadConfig, _load_config)
        LoadOrder(self._switch).handle(handlers)
        handlers.on(LoadSetup, _load_setup)
        handlers.on(LoadIterated, self._load_iterated)
        if self._memory is not None:
            self._memory.handle(handlers, self._liveness.idle)
        return handlers

    # ------------------------------------------------------------------ effects

    def _write_state(self, effect: WriteState) -> None:
        chunk = effect.chunk
        effect.slot.device.load_state(chunk.buffer if chunk.length == chunk.size else chunk.payload)
        self._liveness.moved = True

    def _load_part(self, effect: LoadPart) -> None:
        device = effect.slot.device
        assert isinstance(device, TaggedDevice)
        device.load_part(effect.index, effect.chunk.payload)
        self._liveness.moved = True

    def _load_iterated(self, effect: LoadIterated) -> None:
        device, data = effect.slot.device, effect.data
        if not isinstance(device, TaggedDevice):
            device.load_state(data)
            return
        tag, part = tag_within(data)
        if tag in (tags := self._tags[effect.slot.number]):
            raise DeviceError(f"the part with the tag {tag} has come twice").located_index(tag)
        tags.add(tag)
        device.load_part(tag, part)

    def _move_state(self, effect: WriteState) -> None:
        spliced = self.chunk_queues.by_slot[effect.slot.number].spliced
        if spliced is None or not spliced.move(effect.chunk):
            self._write_state(effect)
        self._liveness.moved = True

    # ------------------------------------------------------------------ receivers

    def receivers(self, channels: Sequence[socket.socket]) -> list[Callable[[], None]]:
        """What the channels' threads run, one each. An error of theirs throws the switch."""
        self._open = len(channels)
        self._received = [0] * len(channels)

        def receiver(number: int, channel: socket.socket) -> Callable[[], None]:
            def receive() -> None:
                try:
                    self._receive(number, channel)
                except MigpoolError as error:
                    self._switch.cancel(_on_channel(error, number))
                except Exception as error:  # noqa: BLE001 -- it must reach the migration, not die with the thread
                    self._switch.cancel(error)

            return receive

        return [receiver(number, channel) for number, channel in enumerate(channels)]

    @property
    def bytes_received(self) -> int:
        """How many bytes of state and of pages have come, without headers."""
        return sum(self._received)

    def _receive(self, number: int, channel: socket.socket) -> None:
        with contextlib.ExitStack() as stack:
            spliced = None
            if self._splice:
                spliced = SplicedChunk(channel, self._pool.size, self._liveness.idle)
                stack.callback(spliced.close)
            self._receive_all(number, channel, spliced)

    def _receive_all(self, number: int, channel: socket.socket, spliced: SplicedChunk | None) -> None:
        memory = self._memory
        header = bytearray(HEADER_SIZE if memory is None else max(HEADER_SIZE, memory.header_size))
        # The data path: all that is the same for every chunk is looked up here, and what could be a call of our own is
        # written out.
        receive = channel.recv_into
        record = self._tracer.recorder()
        parse = self._parser.parse
        take = self._pool.take
        deliver = self.chunk_queues.deliver
        liveness = self._liveness
        idle = self._idle
        received = self._received
        receiving = Wait.RECEIVE
        offset = 64  # the initial packet has been read
        while True:
            try:
                got = receive(header, HEADER_SIZE, WAIT_FOR_ALL)
            except OSError as error:
                got = waited(error, idle)
            if got != HEADER_SIZE and (got := read_rest(channel, header, got, HEADER_SIZE, idle)) != HEADER_SIZE:
                break
            if not header[FLAGS_LOW_BYTE] & DEVICE_STATE:
                if memory is None:
                    offset += self._skip_sync(channel, packet_flags(header, offset), offset, idle)
                    continue
                passed, size = memory.receive(channel, header, HEADER_SIZE, offset, idle, record)
                offset += passed
                received[number] += size
                liveness.moved = True
                continue
            queue, index, size, config = parse(header, offset)
            try:
                chunk = take()
            except MemoryLimitExceeded as error:
                raise MemoryLimitExceeded(self._over_budget(queue.slot, index)) from error
            chunk.length = size
            chunk.index = index
            begin = end = monotonic_ns()
            if spliced is None or config or not self._stays(queue, chunk, spliced):
                if size:
                    try:
                        had = receive(chunk.buffer, size, WAIT_FOR_ALL)
                    except OSError as error:
                        had = waited(error, idle)
                    if had != size and read_rest(channel, chunk.buffer, had, size, idle) != size:
                        raise cut_short(queue.slot.name, index)
                end = monotonic_ns()
            record(pack_span(receiving, queue.slot.number, index, begin, end))
            if config:
                chunk.last = True
                if queue.slot.device.iterable:
                    within = config_within(chunk.payload, offset + HEADER_SIZE)
                    chunk.begin = (size - len(within)) // 2
                    chunk.length = len(within)
            liveness.moved = True
            received[number] += size
            offset += HEADER_SIZE + size
            try:
                deliver(queue, chunk)
            except DeviceError as error:
                raise error.located(queue.slot.name, index) from None
            if spliced is not None:
                spliced.settle()
                if spliced.broken:
                    return  # whose error it was has it
        if got:
            raise ProtocolError(offset, "packet header", f"{HEADER_SIZE} bytes, found the end after {got}")
        self._ended()

    def _stays(self, queue: ChunkQueue, chunk: Chunk, spliced: SplicedChunk) -> bool:
        """Whether the chunk's payload may stay in the channel: the device takes it by splice, and now.

        That is so where a job that nobody waits in is to be carried on by this thread. Nobody is lost if that changes
        before it is, since what is left is received after all: so nothing is locked here.
        Atomic: each read and write of an attribute.
        """
        if queue.ready is None or queue.order.next != chunk.index:
            return False
        slot = queue.slot
        target = of(slot, "splice_fd", lambda: returned.descriptor(slot, "splice_fd", slot.device.splice_fd()))
        if target is None:
            return False
        spliced.offer(queue.slot.name, chunk, target)
        queue.spliced = spliced
        return True

    def _skip_sync(self, channel: socket.socket, flags: int, offset: int, idle: Callable[[], None]) -> int:
        if not flags & SYNC:
            raise ProtocolError(offset, "multifd packet", "device state, found RAM pages: this machine has no RAM")
        rest = PREFIX_SIZE + header_rest(flags) - HEADER_SIZE
        if read_exactly(channel, bytearray(rest), rest, idle) < rest:
            raise ProtocolError(offset, "multifd packet", "a whole SYNC packet, found the end of the channel")
        return HEADER_SIZE + rest

    def _over_budget(self, slot: Slot, index: int) -> str:
        why = "the source sends more than it was granted"
        if not self.chunk_queues.credited:
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
        missing = self.chunk_queues.missing()
        if missing:
            raise PeerGone(f"{ENDED_EARLY} ({missing})")

    def _idle(self) -> None:
        self._liveness.idle(self.chunk_queues.starved())


def _load_setup(effect: LoadSetup) -> None:
    device = effect.slot.device
    if effect.version is not None:
        of(effect.slot, "check_version", partial(device.check_version, effect.version))
    device.load_setup(effect.data)


def _load_config(effect: LoadConfig) -> None:
    device = effect.slot.device
    if effect.version is not None:
        of(effect.slot, "check_version", partial(device.check_version, effect.version))
    device.load_config(effect.config)


def _on_channel(error: MigpoolError, number: int) -> MigpoolError:
    """A protocol error alone does not say which of the channels its offset counts on."""
    if isinstance(error, ProtocolError):
        return ProtocolError(error.offset, f"channel {number}: {error.item}", error.expected)
    return error
