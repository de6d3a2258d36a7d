"""Time stamps of one direction of a connection: which byte had passed when.

The file is a row of pairs of u64, little-endian: CLOCK_MONOTONIC in nanoseconds, and the number of bytes that had come
by then. Both rise. A killed recorder may leave half a pair at the end; it is passed over.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from struct import Struct
from typing import Final

PAIR: Final = Struct("<QQ")
_PAIRS_AT_ONCE: Final = 4096


class Times:
    """Reads the file, in constant memory.

    Arguments:
        path: the file; ``None`` for a direction on which nothing passed.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def pairs(self) -> Iterator[tuple[int, int]]:
        """Every pair (nanoseconds, offset)."""
        if self._path is None:
            return
        with self._path.open("rb", buffering=0) as file:
            rest = b""
            while data := file.read(PAIR.size * _PAIRS_AT_ONCE):
                data = rest + data
                whole = len(data) // PAIR.size * PAIR.size
                rest = data[whole:]
                yield from PAIR.iter_unpack(memoryview(data)[:whole])

    def when(self, offset: int) -> int | None:
        """When the byte at ``offset`` came, in nanoseconds; ``None`` if no stamp covers it."""
        if self._path is None:
            return None
        with self._path.open("rb", buffering=0) as file:
            low, high = 0, os.fstat(file.fileno()).st_size // PAIR.size
            count = high
            while low < high:
                middle = (low + high) // 2
                if self._at(file.fileno(), middle)[1] > offset:
                    high = middle
                else:
                    low = middle + 1
            return self._at(file.fileno(), low)[0] if low < count else None

    def last(self) -> int | None:
        """When the last byte came, in nanoseconds; ``None`` if none did."""
        if self._path is None:
            return None
        with self._path.open("rb", buffering=0) as file:
            count = os.fstat(file.fileno()).st_size // PAIR.size
            return self._at(file.fileno(), count - 1)[0] if count else None

    @staticmethod
    def _at(descriptor: int, number: int) -> tuple[int, int]:
        nanoseconds, offset = PAIR.unpack(os.pread(descriptor, PAIR.size, number * PAIR.size))
        return nanoseconds, offset
