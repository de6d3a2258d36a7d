"""Which pages of the guest's memory are still to be sent, and the packets that a round makes of them.

Guarantees:

1. A page that has been written after it was last read is sent again: what the device's log says is taken, and forgotten
   there, before a page of the round is read.
2. In one round every page goes once, whichever thread takes it.
3. A page is never copied here: a packet holds views of the guest's memory.
4. A page that holds zeros alone costs eight bytes. One that is written while it is looked at is in the log by then,
   so it goes again.

Nothing is done page by page: the pages of several packets, which go one after the other over one channel, are looked
at by a few calls of numpy. Together they cover a huge page when all memory is sent. So at the destination one thread is
the first to touch it; two at once would both have the kernel clear one, and throw one away.
"""

from __future__ import annotations

from threading import Lock
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from migpool.device import MemoryBlock, MemoryDevice
from migpool.errors import DeviceError
from migpool.wire.rampacket import PagePacket, runs_of

PACKET_BYTES = 512 * 1024
"""Bytes of memory that one packet covers at most, as QEMU's multifd packets do."""
PACKETS_AT_ONCE = 4
"""Packets that are taken together: a huge page of 2 MiB."""
SHARES = 16
"""Of a round, at least: however little it is, all threads have a part in it."""
WORD = 8

Indices: TypeAlias = "NDArray[np.intp]"
Words: TypeAlias = "NDArray[np.uint64]"


class _Block:
    """One block, as words, and its pages that are to be sent."""

    __slots__ = ("dirty", "first", "memory", "words")

    def __init__(self, block: MemoryBlock, page_size: int) -> None:
        memory = block.memory
        if memory.readonly or memory.itemsize != 1 or len(memory) % page_size or not len(memory):
            raise DeviceError(
                f"the memory block {block.name} must be writable bytes, a whole number of pages of {page_size}, "
                f"not {len(memory)} items of {memory.itemsize}"
            )
        self.memory = memory
        self.words: Words = np.frombuffer(memory, dtype=np.uint64).reshape(-1, page_size // WORD)
        self.first = self.words[:, 0]
        """Of each page, its first word."""
        self.dirty: NDArray[np.bool_] = np.ones(len(self.words), dtype=np.bool_)


class Pages:
    """The pages of a memory device at the source. At first every page is to be sent.

    Arguments:
        device: whose.
    """

    def __init__(self, device: MemoryDevice) -> None:
        self._device = device
        self._page_size = device.page_size
        self._packet_pages = self._at_once = PACKET_BYTES // device.page_size
        self._blocks = [_Block(block, device.page_size) for block in device.blocks]
        self._lock = Lock()
        self._round: list[tuple[int, Indices]] = []
        self._place = 0
        self.left = sum(len(block.memory) for block in self._blocks)
        """Bytes of all pages that are to be sent."""

    def let_go(self) -> None:
        """Hold no view of the memory any more, so that it can be unmapped at once. Nothing can be taken afterwards."""
        self._blocks = []
        self._round = []

    def look(self) -> None:
        """Take from the device's log which pages have been written since the last look."""
        left = 0
        for number, block in enumerate(self._blocks):
            raw = np.frombuffer(self._device.take_dirty(number), dtype=np.uint8)
            if len(raw) * 8 < len(block.dirty):
                raise DeviceError(f"its log of block {number} has {len(raw)} bytes for {len(block.dirty)} pages")
            block.dirty |= np.unpackbits(raw, count=len(block.dirty), bitorder="little").view(np.bool_)
            left += int(np.count_nonzero(block.dirty))
        self.left = left * self._page_size

    def begin_round(self, together: int = PACKETS_AT_ONCE) -> int:
        """Make what is to be sent now this round's, and return how many bytes of pages that is.

        Arguments:
            together: the most packets that are taken at once.
        """
        with self._lock:
            self._round = [
                (number, chosen)
                for number, block in enumerate(self._blocks)
                if len(chosen := np.flatnonzero(block.dirty))
            ]
            self._place = 0
            count = sum(len(chosen) for _, chosen in self._round)
            packets = max(1, min(together, count // (SHARES * self._packet_pages)))
            self._at_once = packets * self._packet_pages
        for block in self._blocks:
            block.dirty[:] = False
        self.left = 0
        return count * self._page_size

    def take(self) -> list[PagePacket] | None:
        """The next packets of the round, made on the calling thread; ``None`` when the round is over."""
        with self._lock:
            if not self._round:
                return None
            number, chosen = self._round[0]
            mine = chosen[self._place : self._place + self._at_once]
            self._place += len(mine)
            if self._place == len(chosen):
                self._round.pop(0)
                self._place = 0
        block, first, last = self._blocks[number], int(mine[0]), int(mine[-1])
        if last - first == len(mine) - 1 and block.first[first : last + 1].all():
            return self._side_by_side(number, first, mine)
        most = self._packet_pages
        return [self._packet(number, mine[begin : begin + most]) for begin in range(0, len(mine), most)]

    def _side_by_side(self, number: int, first: int, chosen: Indices) -> list[PagePacket]:
        """Pages that lie side by side, none of which can hold zeros alone."""
        size, most, memory = self._page_size, self._packet_pages, self._blocks[number].memory
        offsets = memoryview((chosen * size).astype(">u8").tobytes())
        packets = []
        for begin in range(0, len(chosen), most):
            count = min(most, len(chosen) - begin)
            at, length = (first + begin) * size, count * size
            named = offsets[begin * WORD : (begin + count) * WORD]
            packets.append(PagePacket(number, named, count, 0, [memory[at : at + length]], length))
        return packets

    def _packet(self, number: int, chosen: Indices) -> PagePacket:
        block = self._blocks[number]
        empty = _zeros(block.words, chosen)
        if empty is None:
            normal, pages = chosen, chosen
        else:
            normal = chosen[~empty]
            pages = np.concatenate((normal, chosen[empty]))
        size = self._page_size
        memory = block.memory
        views = [memory[begin * size : end * size] for begin, end in runs_of(normal)]
        offsets = (pages * size).astype(">u8").tobytes()
        return PagePacket(number, offsets, len(normal), len(pages) - len(normal), views, len(normal) * size)


def _zeros(words: Words, chosen: Indices) -> NDArray[np.bool_] | None:
    """Which of the chosen pages hold zeros alone; ``None`` if none does, which costs one word a page to see."""
    first, last = int(chosen[0]), int(chosen[-1])
    together = last - first == len(chosen) - 1
    rows = words[first : last + 1] if together else words
    maybe: NDArray[np.bool_] = np.equal(rows[:, 0] if together else rows[chosen, 0], 0)
    if not maybe.any():
        return None
    if together and maybe.all():
        maybe[:] = np.bitwise_or.reduce(rows, axis=1) == 0
        return maybe if maybe.any() else None
    suspects = np.flatnonzero(maybe)
    maybe[suspects] = np.bitwise_or.reduce(rows[suspects if together else chosen[suspects]], axis=1) == 0
    return maybe if maybe.any() else None
