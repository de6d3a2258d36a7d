"""Memory of this process: mapped once, page-aligned, zeros at first. Only the standard library is behind it."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
from typing import Final

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
            with memoryview(mapping) as whole, whole[begin : begin + size : mmap.PAGESIZE] as pages:
                pages[:] = bytes(pages)  # a write that changes nothing


class Memory:
    """A mapping of whole pages, all of them there from the beginning if it is ``resident``, else as they are touched.

    Attributes:
        view: all of it, writable.
        address: where it begins in this process.
    """

    def __init__(self, size: int, *, resident: bool = False) -> None:
        self._mapping = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            # A kernel without huge pages is slower at the first touch, and no worse otherwise.
            with contextlib.suppress(OSError):
                self._mapping.madvise(mmap.MADV_HUGEPAGE)
        if resident:
            make_resident(self._mapping)
        self.view = memoryview(self._mapping)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self._mapping))

    def __len__(self) -> int:
        return len(self._mapping)

    def find(self, part: bytes) -> int:
        """Return where ``part`` first stands, or -1."""
        return self._mapping.find(part)

    def close(self) -> None:
        """Unmap it. A view that somebody kept keeps it mapped until it goes."""
        self.view.release()
        with contextlib.suppress(BufferError):
            self._mapping.close()
