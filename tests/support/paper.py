"""A memory device that a test writes, with a log of its own."""

from __future__ import annotations

import mmap
import threading
from collections.abc import Sequence

import numpy as np

from migpool.device import Device, MemoryBlock, MemoryDevice

PAGE = 4096


class Paper(MemoryDevice):
    """Blocks of zeros.

    Arguments:
        pages: of each block.
    """

    def __init__(self, *pages: int) -> None:
        self._maps = [mmap.mmap(-1, count * PAGE) for count in pages]
        self._blocks = [MemoryBlock(f"block-{n}", memoryview(one)) for n, one in enumerate(self._maps)]
        self._lock = threading.Lock()
        self._written = [np.zeros(count, dtype=np.bool_) for count in pages]
        self.lossy = 0
        """Leave so many pages that were written out of each answer."""
        self.logging = False
        self.shares: list[float] = []
        self.calls: list[str] = []

    @property
    def blocks(self) -> Sequence[MemoryBlock]:
        return self._blocks

    def write(self, block: int, page: int, data: bytes) -> None:
        """As a guest would: the page, and the log."""
        with self._lock:
            self._blocks[block].memory[page * PAGE : page * PAGE + len(data)] = data
            self._written[block][page] = True

    def start_dirty_log(self) -> None:
        self.calls.append("start_dirty_log")
        self.logging = True

    def take_dirty(self, block: int) -> bytes:
        with self._lock:
            answer = self._written[block].copy()
            self._written[block][:] = False
        if self.lossy:
            answer[np.flatnonzero(answer)[: self.lossy]] = False
        return np.packbits(answer, bitorder="little").tobytes()

    def stop_dirty_log(self) -> None:
        self.calls.append("stop_dirty_log")
        self.logging = False

    def throttle(self, share: float) -> None:
        self.shares.append(share)

    def contents(self) -> list[bytes]:
        return [bytes(one) for one in self._maps]


class Writer(Device):
    """A vCPU of a kind: writes the paper, page after page, while it runs, and slower when it is throttled.

    Arguments:
        paper: what it writes; ``None`` at the destination.
        pages: of the first block it writes, from the first on.
        rest: seconds between two pages.
    """

    idstr = "writer"

    def __init__(self, paper: Paper | None, pages: int = 0, rest: float = 0.0) -> None:
        self._paper = paper
        self._pages = pages
        self._rest = rest
        self._share = 0.0
        self._stop = threading.Event()
        self.written = 0
        self.shares: list[float] = []
        self._thread: threading.Thread | None = None

    def run(self) -> None:
        self._stop.clear()
        self._thread = threading.Thread(target=self._write)
        self._thread.start()

    def _write(self) -> None:
        paper = self._paper
        assert paper is not None
        while not self._stop.is_set():
            self.written += 1
            paper.write(0, self.written % self._pages, self.written.to_bytes(8, "little") * (PAGE // 8))
            self._stop.wait(self._rest / (1.0 - self._share))

    @property
    def running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def throttle(self, share: float) -> None:
        self._share = share
        self.shares.append(share)

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def resume(self) -> None:
        if self._thread is None and self._paper is not None:
            self.run()

    def save_config(self) -> bytes:
        return self.written.to_bytes(8, "little")

    def load_config(self, data: bytes) -> None:
        self.written = int.from_bytes(data, "little")

    def close(self) -> None:
        self.stop()
