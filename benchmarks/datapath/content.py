"""The devices' state: memfds that are filled once, and sinks whose pages are there already. Checked after every run.

Guarantees:

1. No two pages of the state are alike, so a page in the wrong place is found as well as a missing one.
2. After ``spoil`` every page of the sinks is wrong, so what ``check`` finds there has been moved since.
3. Both programs read and write the same memory: nothing differs between them but the code.
"""

from __future__ import annotations

import mmap
import os
from array import array
from random import Random
from types import TracebackType
from typing import Self

from benchmarks.datapath.failure import BenchmarkFailure

__all__ = ["Content"]

PAGE = 4096
BLOCK = 1 << 20
WORDS = PAGE // 8


class Content:
    """The state of ``devices`` devices at both ends.

    Arguments:
        devices: how many.
        size: bytes a device, a multiple of 1 MiB.
    """

    def __init__(self, devices: int, size: int) -> None:
        self.size = size
        self.sources: list[int] = []
        self.sinks: list[int] = []
        self._maps: list[tuple[mmap.mmap, mmap.mmap]] = []
        block = Random(devices).randbytes(BLOCK)
        for number in range(devices):
            source, sink = os.memfd_create(f"source{number}"), os.memfd_create(f"sink{number}")
            self.sources.append(source)
            self.sinks.append(sink)
            for at in range(0, size, BLOCK):
                os.pwrite(source, block, at)
                os.pwrite(sink, block, at)
            maps = mmap.mmap(source, size), mmap.mmap(sink, size)
            self._maps.append(maps)
            _stamp(maps[0], array("Q", range(number << 40, (number << 40) + size // PAGE)))
        self._wrong = array("Q", [(1 << 64) - 1]) * (size // PAGE)

    def spoil(self) -> None:
        """Make every page of the sinks wrong."""
        for _, sink in self._maps:
            _stamp(sink, self._wrong)

    def check(self) -> None:
        """Compare the sinks with the sources, byte for byte.

        Raises:
            BenchmarkFailure: they differ.
        """
        for number, (source, sink) in enumerate(self._maps):
            for at in range(0, self.size, BLOCK):
                if source[at : at + BLOCK] != sink[at : at + BLOCK]:
                    raise BenchmarkFailure(f"device {number}: what arrived after byte {at} is not what was sent")

    def close(self) -> None:
        """Give the memory back."""
        for pair in self._maps:
            for each in pair:
                each.close()
        for fd in (*self.sources, *self.sinks):
            os.close(fd)
        self._maps, self.sources, self.sinks = [], [], []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _stamp(memory: mmap.mmap, words: array[int]) -> None:
    """Write one of ``words`` at the beginning of each page."""
    with memoryview(memory) as raw, raw.cast("Q") as every, every[::WORDS] as first, memoryview(words) as stamps:
        first[:] = stamps
