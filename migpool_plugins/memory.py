"""Memory of this process: mapped once, page-aligned, zeros at first. Only the standard library is behind it."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import mmap
import os
from typing import Final

_POPULATE_WRITE: Final = 23
"""MADV_POPULATE_WRITE of ``linux/mman.h``, from Linux 5.14 on; Python 3.11 has no name for it."""
_PIECE: Final = 64 << 20
"""Bytes at once, so that an interrupt is heard in between."""

# ctypes.CDLL gives up the interpreter lock during the call.
_memcpy = ctypes.CDLL(None).memcpy
_memcpy.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_memcpy.restype = None
_byte = ctypes.c_char.from_buffer


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


def shared_file(size: int) -> int:
    """Return a descriptor of a file in memory that has ``size`` bytes for ever: what another process can map, too."""
    descriptor = os.memfd_create("memory", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, size)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    return descriptor


class Memory:
    """A mapping of whole pages, all of them there from the beginning if it is ``resident``, else as they are touched.

    Arguments:
        descriptor: of a file to map, which it owns from now on; -1: memory of this process alone.

    Attributes:
        view: all of it, writable.
        address: where it begins in this process.
        descriptor: as given; -1 when it is closed.
    """

    def __init__(self, size: int, *, resident: bool = False, descriptor: int = -1) -> None:
        self.descriptor = descriptor
        kind = mmap.MAP_SHARED if descriptor >= 0 else mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        self._mapping = mmap.mmap(descriptor, size, kind)
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

    def get(self, at: int, into: memoryview) -> None:
        """Copy what begins at ``at`` to ``into``, and fill that.

        Other threads go on meanwhile; one that closes the memory does not take it from under the copy.

        Raises:
            ValueError: there are not so many bytes, or it is closed.
        """
        here = self._bytes(at, len(into))
        _memcpy(ctypes.byref(_byte(into)), ctypes.byref(here), len(into))

    def put(self, at: int, data: memoryview) -> None:
        """Copy ``data`` to ``at``; as :meth:`get` otherwise."""
        there = self._bytes(at, len(data))
        if data.readonly:
            self.view[at : at + len(data)] = data
        else:
            _memcpy(ctypes.byref(there), ctypes.byref(_byte(data)), len(data))

    def _bytes(self, at: int, length: int) -> ctypes.c_char:
        """The first of some bytes, which are there as long as it is."""
        if not 0 < length <= len(self) - at:
            raise ValueError(f"{length} bytes at {at} are no part of {len(self)} bytes of memory")
        return _byte(self._mapping, at)

    def close(self) -> None:
        """Unmap it. A view that somebody kept keeps it mapped until it goes."""
        self.view.release()
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
        with contextlib.suppress(BufferError):
            self._mapping.close()
