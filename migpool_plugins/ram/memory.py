"""Guest memory as this process has it (mapped once, page-aligned, zeros at first), and as a device that migrates."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import numpy as np

from migpool.device import DeviceError, MemoryBlock, MemoryDevice

_POPULATE_WRITE: Final = 23
"""MADV_POPULATE_WRITE of ``linux/mman.h``, from Linux 5.14 on; Python 3.11 has no name for it."""
_PIECE: Final = 64 << 20
"""Bytes at once, so that an interrupt is heard in between."""


def make_resident(mapping: mmap.mmap) -> None:
    """Have the kernel give every page of a mapping now, so that nobody waits for it at the first touch.

    Receiving into memory that was never touched costs more than the copy: the kernel clears each page first, on the
    thread that receives.
    """
    for begin in range(0, len(mapping), _PIECE):
        size = min(_PIECE, len(mapping) - begin)
        try:
            mapping.madvise(_POPULATE_WRITE, begin, size)
        except OSError:  # an older kernel, or another system
            pages = np.frombuffer(mapping, dtype=np.uint8, count=size, offset=begin)[:: mmap.PAGESIZE]
            pages |= 0  # a write that changes nothing
            del pages  # a view would keep the mapping from being closed


class GuestMemory:
    """A mapping of whole pages, all of them there from the beginning if it is ``resident``, else as they are touched.

    Attributes:
        view: all of it, writable.
        address: where it begins in this process.
    """

    def __init__(self, size: int, *, resident: bool = False) -> None:
        self._mapping = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            try:
                self._mapping.madvise(mmap.MADV_HUGEPAGE)
            except OSError:
                pass  # a kernel without huge pages: slower at the first touch, and no worse otherwise
        if resident:
            make_resident(self._mapping)
        self.view = memoryview(self._mapping)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self._mapping))

    def __len__(self) -> int:
        return len(self._mapping)

    def close(self) -> None:
        """Unmap it. A view that somebody kept keeps it mapped until it goes."""
        self.view.release()
        try:
            self._mapping.close()
        except BufferError:
            pass  # a part of it is still looked at; the mapping goes with the last view


class DirtyLog(Protocol):
    """How it is known which pages are written; see :class:`~migpool.device.MemoryDevice` for what each must keep."""

    @property
    def name(self) -> str:
        """What a reader of the result should see."""

    def start(self) -> None:
        """Log from now on."""

    def take(self) -> bytes | bytearray:
        """What has been written since the last call, as a bitmap."""

    def stop(self) -> None:
        """Log no more. Harmless when repeated."""


class RamDevice(MemoryDevice):
    """Guest memory of one block.

    Arguments:
        memory: closed with the device, so after the devices that come behind it in the machine.
        block: the block's name in the stream.
        log: knows what is written.
        check: proves at the destination that all is as it should be; raises :class:`VerificationError` if not.
    """

    def __init__(self, memory: GuestMemory, block: str, log: DirtyLog, check: Callable[[], None]) -> None:
        self.note = log.name
        self._memory = memory
        self._blocks = (MemoryBlock(block, memory.view),)
        self._log = log
        self._check = check

    @property
    def blocks(self) -> Sequence[MemoryBlock]:
        return self._blocks

    def start_dirty_log(self) -> None:
        self._log.start()

    def take_dirty(self, block: int) -> bytes | bytearray:
        if block:
            raise DeviceError(f"the memory has one block, but block {block} was asked for")
        return self._log.take()

    def stop_dirty_log(self) -> None:
        self._log.stop()

    def verify(self) -> None:
        self._check()

    def close(self) -> None:
        self._memory.close()
