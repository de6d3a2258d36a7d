"""A process of its own that looks at a file's pages of RAM through a mapping.

To read a file copies all of it, though of a page of RAM only the word before it counts. A mapping copies nothing; but
if somebody cuts the file short, or its disk fails, whoever looks at what is missing is killed by SIGBUS. That is then
this process, and what it was asked for is read instead.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import resource
from pathlib import Path
from struct import Struct
from typing import Final, NoReturn

from migpool.wire.pageruns import WORD, run_of_pages

WORTH: Final = 32 << 20
"""Bytes of a file from which on a process is worth it."""
_SMALLEST: Final = 1 << 20
_LARGEST: Final = 64 << 20
_QUESTION: Final = Struct("=QQQ")
_ANSWER: Final = Struct("=Q")
_MADV_POPULATE_READ: Final = 22  # Linux 5.14; the module mmap does not name it


def can_fork() -> bool:
    """Whether this process has a single thread: of others, a fork would have the locks and not the threads."""
    try:
        return len(list(Path("/proc/self/task").iterdir())) == 1
    except OSError:
        return False


class MappingProcess:
    """Counts pages that follow one another in a file, in a process that is forked here.

    Arguments:
        descriptor: of the file.
        end: how many bytes it has.
    """

    def __init__(self, descriptor: int, end: int) -> None:
        question, self._ask = os.pipe()
        self._answer, answer = os.pipe()
        self._process = os.fork()
        if not self._process:
            _serve(descriptor, end, question, answer, {self._ask, self._answer})
        os.close(question)
        os.close(answer)

    def count(self, place: int, page_size: int, used: int) -> int | None:
        """How many pages stand from a place of the file on that continue one another, each with its contents.

        Arguments:
            place: of the first one's word.
            page_size: bytes of a page.
            used: the used length of their block.

        Returns:
            their number; ``None`` if the process has ended, and so will every other question.
        """
        answer = b""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._ask, _QUESTION.pack(place, page_size, used))
            answer = os.read(self._answer, _ANSWER.size)
        return int(_ANSWER.unpack(answer)[0]) if answer else None

    def close(self) -> None:
        """End the process."""
        os.close(self._ask)
        os.close(self._answer)
        os.waitpid(self._process, 0)


def _serve(descriptor: int, end: int, question: int, answer: int, others: set[int]) -> NoReturn:
    """What the process does until its pipe is closed."""
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for one in others:
            os.close(one)
        mapping = _Mapping(descriptor, end)
        while len(asked := os.read(question, _QUESTION.size)) == _QUESTION.size:
            os.write(answer, _ANSWER.pack(mapping.count(*_QUESTION.unpack(asked))))
    finally:
        os._exit(0)


class _Mapping:
    """A part of a file that is mapped, and moves on: the larger the longer it does."""

    def __init__(self, descriptor: int, end: int) -> None:
        self._descriptor = descriptor
        self._end = end
        self._begin = 0
        self._view = memoryview(b"")
        self._size = _SMALLEST

    def count(self, place: int, page_size: int, used: int) -> int:
        found = 0
        right: int | None = None
        stride = WORD + page_size
        while place + stride <= self._end:
            if not self._begin <= place <= self._begin + len(self._view) - stride:
                self._move(place, stride)
            there = self._view[place - self._begin :]
            count, address = run_of_pages(there, page_size, used)
            if not count or right not in (None, address):
                break
            found, place, right = found + count, place + count * stride, address + count * page_size
            if count < len(there) // stride:
                break
        return found

    def _move(self, place: int, stride: int) -> None:
        self._view = memoryview(b"")  # lets the mapping before go
        self._begin = place - place % mmap.ALLOCATIONGRANULARITY
        size = min(max(self._size, 2 * stride), self._end - self._begin)
        self._size = min(2 * self._size, _LARGEST)
        mapped = mmap.mmap(self._descriptor, size, access=mmap.ACCESS_READ, offset=self._begin)
        with contextlib.suppress(OSError, ValueError):  # quicker than a page fault for each
            mapped.madvise(_MADV_POPULATE_READ)
        self._view = memoryview(mapped)
