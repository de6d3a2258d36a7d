"""The memory at the destination: pages straight from the socket into the guest's memory, and the SYNCs.

Guarantees:

1. A page's bytes go from the socket into their place; a page of zeros is written only if it holds something else, so
   memory that was never touched stays so.
2. No page of a round is written before all pages of the rounds before: a channel is not read behind its SYNC until
   every channel has come to its own and, while the machine runs, the main channel to its FLUSH.
3. From the switchover on no channel waits for the main one. Its reader may wait for a job, under a model that runs the
   job on that thread or has no thread left for it, and the job for a chunk behind a SYNC: a QEMU sends both at once.
   No page is lost by it: of a machine that stands still each is sent once more at the most, on whichever channel, and
   what the main channel said of it before the switchover has been loaded.
4. Every wait here ends when the switch is thrown.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from time import monotonic_ns
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from migpool.core.cancel import CancelSwitch
from migpool.core.effects import Wait
from migpool.core.handlers import Handlers
from migpool.core.machine import Slot
from migpool.core.own_effects import AwaitSyncs, LoadPages
from migpool.core.trace import Recorder, pack_span
from migpool.device import MemoryBlock, MemoryDevice
from migpool.errors import PeerError, ProtocolError
from migpool.transport.sockets import read_exactly, read_into
from migpool.units import count_of
from migpool.wire.multifd import SYNC, packet_flags, ram_header_size
from migpool.wire.ram import RamBlocks, RamPages
from migpool.wire.rampacket import RamPacketParser, Runs, packet_number, runs_of

Idle: TypeAlias = Callable[[], None]


class _Block:
    """One block, as bytes and as words."""

    __slots__ = ("memory", "words")

    def __init__(self, block: MemoryBlock, page_size: int) -> None:
        self.memory = block.memory
        self.words: NDArray[np.uint64] = np.frombuffer(block.memory, dtype=np.uint64).reshape(-1, page_size // 8)

    def clear(self, pages: NDArray[np.intp]) -> None:
        """Have these pages hold zeros."""
        for begin, end in runs_of(pages):
            rows = self.words[begin:end]
            used = np.flatnonzero(np.bitwise_or.reduce(rows, axis=1))
            if len(used):
                rows[used] = 0


class RamDestination:
    """Receives a machine's memory.

    Arguments:
        slot: the memory's.
        device: the memory.
        channels: how many multifd channels there are.
        tick: how often a wait for a SYNC looks up, in seconds.
        switch: ends every wait.
    """

    def __init__(self, slot: Slot, device: MemoryDevice, channels: int, tick: float, switch: CancelSwitch) -> None:
        self._slot = slot
        self._page_size = device.page_size
        self._blocks = {block.name: _Block(block, device.page_size) for block in device.blocks}
        self._parser = RamPacketParser(
            {name: (len(block.memory), block) for name, block in self._blocks.items()}, device.page_size
        )
        self.header_size = ram_header_size(device.page_size)
        """Bytes of a RAM packet's header."""
        self._channels = channels
        self._tick = tick
        self._switch = switch
        self._synced = threading.Condition(threading.Lock())
        self._arrived = 0
        self._rounds = 0
        self._flushed = 0
        self._stopped = False
        self.complete = False
        """Whether the last section has come, and so every page."""
        switch.on_cancel(self._wake)

    def let_go(self) -> None:
        """Hold no view of the memory any more, so that it can be unmapped at once. Every receiver has ended."""
        self._blocks = {}
        self._parser = RamPacketParser({})

    def handle(self, handlers: Handlers, idle: Callable[[str], None]) -> None:
        """Say what the effects of the main channel mean; ``idle`` is :meth:`flush`'s."""
        handlers.on(LoadPages, lambda effect: self.load_pages(effect.item))
        handlers.on(AwaitSyncs, lambda _: self.flush(idle))

    # ------------------------------------------------------------------ the main channel

    def check_blocks(self, item: RamBlocks) -> None:
        """The source's blocks must be those of this machine.

        Raises:
            ProtocolError: they are not.
        """
        theirs = {block.name: block.used_length for block in item.blocks}
        ours = {name: len(block.memory) for name, block in self._blocks.items()}
        if theirs != ours:
            raise ProtocolError(
                item.offset, "RAM block list", f"{_shown(ours)}, found {_shown(theirs)}: start both ends alike"
            )

    def load_pages(self, item: RamPages) -> int:
        """Load pages that came on the main channel; returns how many bytes of them came."""
        block = self._blocks[item.block]
        size = 0
        for address, page in item:
            if page is None:
                block.clear(np.array([address // self._page_size]))
            else:
                block.memory[address : address + len(page)] = page
                size += len(page)
        return size

    def flush(self, idle: Callable[[str], None]) -> None:
        """Wait until every channel has come to its SYNC, then let all of them go on.

        Arguments:
            idle: called at each tick with what is waited for.
        """

        def waiting() -> None:
            idle(f"{self._slot.name}: no SYNC yet on {count_of(self._channels - self._arrived, 'channel')}")

        self._wait(lambda: self._rounds > self._flushed, waiting)
        with self._synced:
            self._flushed += 1
            self._synced.notify_all()

    def stopped(self) -> None:
        """The machine stands still at the source: from now on a SYNC waits for the other channels alone."""
        with self._synced:
            self._stopped = True
            self._synced.notify_all()

    # ------------------------------------------------------------------ the channels

    def receive(
        self, channel: socket.socket, header: bytearray, had: int, offset: int, idle: Idle, record: Recorder
    ) -> tuple[int, int]:
        """Receive one RAM packet or SYNC.

        Arguments:
            channel: where from; its thread calls this.
            header: room for ``header_size`` bytes; the packet's first ones are in it.
            had: how many those are.
            offset: where in the channel the packet begins.
            idle: called at each tick without a byte.
            record: the thread's recorder.

        Returns:
            How many bytes the packet had, and how many of them were pages.

        Raises:
            ProtocolError: the packet is not right.
            PeerError: the channel ended within it.
        """
        whole = self.header_size
        if read_exactly(channel, memoryview(header)[had:], whole - had, idle) < whole - had:
            raise ProtocolError(offset, "multifd packet", "a whole header, found the end of the channel")
        found = self._parser.parse(header, offset)
        size = 0 if found is None else self._load(channel, header, *found, idle, record)
        if packet_flags(header, offset) & SYNC:
            begin = monotonic_ns()
            self._wait_for_others(idle)
            record(pack_span(Wait.SYNC, self._slot.number, -1, begin, monotonic_ns()))
        return whole + size, size

    def _load(
        self,
        channel: socket.socket,
        header: bytearray,
        block: _Block,
        normal: Runs,
        zero: NDArray[np.intp],
        idle: Idle,
        record: Recorder,
    ) -> int:
        """Receive the pages of one packet; returns how many bytes they had."""
        size = 0
        begin = monotonic_ns()
        if normal:
            page, memory = self._page_size, block.memory
            views = [memory[first * page : end * page] for first, end in normal]
            size = sum(map(len, views))
            if read_into(channel, views, size, idle) < size:
                raise PeerError(f"{self._slot.name}: the source closed the channel in the middle of its pages")
        if len(zero):
            block.clear(zero)
        record(pack_span(Wait.RECEIVE, self._slot.number, packet_number(header), begin, monotonic_ns()))
        return size

    def _wait_for_others(self, idle: Idle) -> None:
        with self._synced:
            ended = self._rounds + 1
            self._arrived += 1
            if self._arrived == self._channels:
                self._arrived = 0
                self._rounds = ended
                self._synced.notify_all()
        self._wait(lambda: self._rounds >= ended and (self._flushed >= ended or self._stopped), idle)

    def _wait(self, ready: Callable[[], bool], idle: Idle) -> None:
        while True:
            with self._synced:
                if self._synced.wait_for(lambda: self._switch.thrown or ready(), self._tick):
                    break
            idle()  # without the lock: it may throw the switch, which takes that
        self._switch.check()

    def _wake(self) -> None:
        with self._synced:
            self._synced.notify_all()


def _shown(blocks: dict[str, int]) -> str:
    return ", ".join(f"{name} with {length} bytes" for name, length in blocks.items()) or "no block"
