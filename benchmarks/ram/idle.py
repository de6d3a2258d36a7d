"""Memory that nobody writes, full of numbers that do not repeat."""

from __future__ import annotations

import mmap
import random
import time
from collections.abc import Sequence

from migpool.device import MemoryBlock, MemoryDevice
from migpool_plugins.memory import make_resident

__all__ = ["IdleMemory", "cool", "random_piece", "warm"]

PIECE = 16 << 20
COOLING = 6.0
"""Seconds within which a host that takes free memory back has done so."""


def random_piece() -> bytes:
    """What the memory is filled with, again and again; no page of it holds zeros or is like another."""
    return random.Random(1).randbytes(PIECE)


def warm(size: int) -> None:
    """Have the system take so much memory and give it back, just before something is measured that takes it.

    A virtual machine's kernel may tell its host which memory is free. A few seconds later the host has taken it, and
    the first touch costs ten times as much: who comes right after another has freed memory would win by chance.
    """
    with mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as mapping:
        mapping.madvise(mmap.MADV_HUGEPAGE)
        make_resident(mapping)


def cool(size: int) -> None:
    """Let the host take back what is free, so that the first touch costs what it does on a system that was idle."""
    del size
    time.sleep(COOLING)


class IdleMemory(MemoryDevice):
    """One block.

    Arguments:
        size: in bytes, a multiple of 16 MiB.
        filled: whether it holds something.
        resident: whether all of it is there before anything is written to it.
    """

    def __init__(self, size: int, *, filled: bool, resident: bool) -> None:
        self._mapping = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._mapping.madvise(mmap.MADV_HUGEPAGE)  # as QEMU does
        if resident:
            make_resident(self._mapping)
        self._blocks = (MemoryBlock("memory", memoryview(self._mapping)),)
        self._none = bytes(size // self.page_size // 8)
        if filled:
            piece = random_piece()
            for begin in range(0, size, PIECE):
                self._mapping[begin : begin + PIECE] = piece

    @property
    def blocks(self) -> Sequence[MemoryBlock]:
        return self._blocks

    def start_dirty_log(self) -> None:
        """Nothing to log."""

    def take_dirty(self, block: int) -> bytes:
        """No page."""
        del block
        return self._none

    def stop_dirty_log(self) -> None:
        """Nothing was logged."""

    def whole(self) -> bool:
        """Whether all of it is what :func:`random_piece` says."""
        piece = random_piece()
        return all(self._mapping[begin : begin + PIECE] == piece for begin in range(0, len(self._mapping), PIECE))
