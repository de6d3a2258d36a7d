"""Bytes in order, from a file, from a pipe, or out of another source."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from typing import Protocol

PIECE = 1 << 20
"""How many bytes are read at once."""


class DamagedData(Exception):
    """Compressed data cannot be undone any further; all that could has been read."""


class Readable(Protocol):
    """A pipe."""

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes; none at the end."""
        ...


class Source(ABC):
    """Bytes in order, with a look at those that come next.

    Attributes:
        position: how many bytes have been read.
    """

    def __init__(self) -> None:
        self._ahead = b""
        self.position = 0

    @abstractmethod
    def more(self, size: int) -> bytes:
        """The next bytes, at most ``size``; none at the end."""

    def read(self, size: int = PIECE) -> bytes:
        """At most ``size`` bytes; none at the end."""
        if self._ahead:
            piece, self._ahead = self._ahead[:size], self._ahead[size:]
        else:
            piece = self.more(size)
        self.position += len(piece)
        return piece

    def exactly(self, size: int) -> bytes:
        """``size`` bytes, or all that are left if there are fewer."""
        self.peek(size)
        return self.read(size) if size else b""

    def peek(self, size: int) -> bytes:
        """The next ``size`` bytes, or all that are left if there are fewer; they stay."""
        while len(self._ahead) < size and (piece := self.more(size - len(self._ahead))):
            self._ahead += piece
        return self._ahead[:size]

    def left(self) -> int | None:
        """How many bytes are still to be read; ``None`` if only reading them tells."""
        return None

    def last(self, count: int) -> tuple[int, bytes] | None:
        """The last ``count`` bytes of all that is still to be read, and the place of the first of them.

        ``None`` if they cannot be had before the others.
        """
        del count
        return None


class PipeSource(Source):
    """What comes out of a pipe. It has no time limit: its writer's end is the source's."""

    def __init__(self, pipe: Readable) -> None:
        super().__init__()
        self._pipe = pipe

    def more(self, size: int) -> bytes:
        return self._pipe.read(size)


class SeekableSource(Source):
    """Bytes at places that are known beforehand.

    Arguments:
        begin: where they begin.
        end: where they end.

    Attributes:
        begin: where they begin.
    """

    def __init__(self, begin: int, end: int) -> None:
        super().__init__()
        self.begin = min(begin, end)
        self._at = self.begin
        self._end = end

    @abstractmethod
    def at(self, place: int, size: int) -> bytes:
        """At most ``size`` bytes that stand at a place."""

    def more(self, size: int) -> bytes:
        piece = self.at(self._at, min(size, self._end - self._at))
        self._at += len(piece)
        return piece

    def left(self) -> int | None:
        return self._end - self._at + len(self._ahead)

    def last(self, count: int) -> tuple[int, bytes] | None:
        begin = max(self.begin, self._end - count)
        parts, at = [], begin
        while at < self._end and (piece := self.at(at, self._end - at)):
            parts.append(piece)
            at += len(piece)
        return begin - self.begin, b"".join(parts)


class FileSource(SeekableSource):
    """A file, or a part of it, up to its end.

    Arguments:
        descriptor: of the open file, which stays the caller's.
        begin: its first byte that counts.

    Attributes:
        descriptor: of the file.
    """

    def __init__(self, descriptor: int, begin: int = 0) -> None:
        before = os.lseek(descriptor, 0, os.SEEK_CUR)
        super().__init__(begin, os.lseek(descriptor, 0, os.SEEK_END))
        os.lseek(descriptor, before, os.SEEK_SET)
        self.descriptor = descriptor

    def at(self, place: int, size: int) -> bytes:
        return os.pread(self.descriptor, size, place)

    def leap(self, count: int) -> None:
        """Pass over bytes that somebody else has looked at."""
        self._at += count
        self.position += count

    @property
    def place(self) -> int:
        """Where in the file the next byte stands."""
        return self._at - len(self._ahead)

    @property
    def end(self) -> int:
        """Where the file ended when it was opened."""
        return self._end


class BytesSource(SeekableSource):
    """What is in memory already."""

    def __init__(self, data: bytes) -> None:
        super().__init__(0, len(data))
        self._data = data

    def at(self, place: int, size: int) -> bytes:
        return self._data[place : place + size]
