"""The buffers that chunks travel in, and how much of them a migration may hold.

Guarantees:

1. Buffers are page-aligned.
2. A pool never has more than ``limit`` buffers out at once. It does not wait for one: whoever asks has its room
   reserved (the windows see to that), so an empty pool is an error of the caller or of a peer that knows no credits.
3. Buffers are used again, last in first out, while their pages are still in the cache. To take one that is there or to
   give one back costs no lock. Atomic, also without the interpreter lock: ``list.pop`` and ``list.append``.
4. The first buffers, up to ``READY`` bytes, have their pages before the machine stops.
5. The high-water mark is the most that was out at once, in whole buffers. It is the number of buffers that were ever
   taken, since the last one in is the first one out.

What 1 and 4 are worth: the decision "One page-aligned read buffer a job, with its pages there before the stop".
"""

from __future__ import annotations

import fcntl
import mmap
import os
from threading import Lock

from migpool.errors import MemoryLimitExceeded

READY = 64 << 20


class Chunk:
    """A buffer, and what is in it.

    Arguments:
        size: in bytes.
        touched: have the kernel give it all its pages at once.

    Attributes:
        size: of the whole buffer, in bytes.
        buffer: the whole buffer, writable.
        begin: where in it the content begins.
        length: how many bytes of content there are.
        index: the chunk's place among its device's.
        last: whether it is the device's config, the last index.
        taken: whether it has ever been out of its pool.
    """

    __slots__ = ("_memory", "begin", "buffer", "index", "last", "length", "size", "taken")

    def __init__(self, size: int, *, touched: bool = False) -> None:
        populate = mmap.MAP_POPULATE if touched and hasattr(mmap, "MAP_POPULATE") else 0
        self._memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | populate)
        self.buffer = memoryview(self._memory)
        self.size = size
        self.begin = 0
        self.length = 0
        self.index = -1
        self.last = False
        self.taken = False

    @property
    def payload(self) -> memoryview:
        """The filled part; the buffer itself when it is full, so that a full chunk costs no object."""
        if self.length == self.size:
            return self.buffer
        return self.buffer[self.begin : self.begin + self.length]

    def close(self) -> None:
        """Unmap the buffer. A view that somebody kept keeps the memory until it goes."""
        self.buffer.release()
        try:
            self._memory.close()
        except BufferError:
            pass  # a part of it is still looked at; the mapping goes with the last view


class Conduit:
    """A pipe in the place of a buffer: state goes into one end and out of the other as pages, without a copy.

    Attributes:
        length: how many bytes are in it.
    """

    __slots__ = ("inlet", "length", "outlet", "size")

    def __init__(self, size: int) -> None:
        self.outlet, self.inlet = os.pipe()
        try:
            self.size = fcntl.fcntl(self.inlet, fcntl.F_SETPIPE_SZ, size)
        except OSError:
            self.size = fcntl.fcntl(self.inlet, fcntl.F_GETPIPE_SZ)  # the system allows no more to this user
        self.length = 0

    def close(self) -> None:
        """Close both ends."""
        os.close(self.inlet)
        os.close(self.outlet)


class BufferPool:
    """Buffers of one size, at most ``limit`` out at once.

    Arguments:
        size: bytes a buffer; a multiple of the page size is best.
        limit: how many may be out.
    """

    def __init__(self, size: int, limit: int) -> None:
        self.size = size
        self.limit = limit
        self._making = Lock()
        self._made = [Chunk(size, touched=True) for _ in range(min(limit, READY // size))]
        self._spare = list(self._made)
        self._closed = False

    @property
    def high_water(self) -> int:
        """The most bytes that were out at once."""
        return sum(chunk.taken for chunk in self._made) * self.size

    def take(self) -> Chunk:
        """A buffer, empty.

        Raises:
            MemoryLimitExceeded: ``limit`` buffers are out.
        """
        try:
            chunk = self._spare.pop()
        except IndexError:
            chunk = self._another()
        chunk.taken = True
        return chunk

    def _another(self) -> Chunk:
        """One more, or one that was given back meanwhile."""
        with self._making:
            if len(self._made) < self.limit:
                chunk = Chunk(self.size)
                self._made.append(chunk)
                return chunk
            try:
                return self._spare.pop()
            except IndexError:
                raise MemoryLimitExceeded(
                    f"all {self.limit} buffers of {self.size} bytes are in use: raise the memory budget"
                ) from None

    def give_back(self, chunk: Chunk) -> None:
        """The buffer is free for the next chunk; its content is lost."""
        chunk.begin = chunk.length = 0
        chunk.last = False
        self._spare.append(chunk)
        # After the append, as ``close`` looks at the spare ones after it has set this: one of the two sees the other.
        if self._closed:
            self.close()

    def close(self) -> None:
        """Unmap the spare buffers; those still out go when they are given back."""
        self._closed = True
        while True:
            try:
                # And not a look whether there is one: that orders nothing between the threads.
                chunk = self._spare.pop()
            except IndexError:
                return
            chunk.close()
