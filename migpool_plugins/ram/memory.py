"""Guest memory as this process has it: mapped once, page-aligned, zeros at first."""

from __future__ import annotations

import ctypes
import mmap

__all__ = ["GuestMemory"]


class GuestMemory:
    """A mapping.

    Arguments:
        size: in bytes, whole pages.

    Attributes:
        view: all of it, writable.
        address: where it begins in this process.
    """

    def __init__(self, size: int) -> None:
        self._mapping = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            try:
                self._mapping.madvise(mmap.MADV_HUGEPAGE)
            except OSError:
                pass  # a kernel without huge pages: slower at the first touch, and no worse otherwise
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
