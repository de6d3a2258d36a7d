"""A process of its own that looks at a file's pages of RAM through a mapping.

To read a file copies all of it, though of a page of RAM only the word before it counts. A mapping copies nothing; but
if somebody cuts the file short, or its disk fails, whoever looks at what is missing is killed by SIGBUS. That is then
this process, and the file is read instead.
"""

from __future__ import annotations

import contextlib
import gc
import mmap
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn, TypeVar, cast

from migpool.wire.pageruns import WORD, run_of_pages

WORTH: Final = 32 << 20
"""Bytes of a file from which on a process is worth it."""
_SMALLEST: Final = 1 << 20
_LARGEST: Final = 64 << 20
_MADV_POPULATE_READ: Final = 22  # Linux 5.14; the module mmap does not name it

T = TypeVar("T")


def can_fork() -> bool:
    """Whether this process has a single thread: of others, a fork would have the locks and not the threads."""
    try:
        return len(list(Path("/proc/self/task").iterdir())) == 1
    except OSError:
        return False


def asked_apart(ask: Callable[[], T]) -> T | None:
    """What ``ask`` returns in a process that is forked here; ``None`` if that ended before, whatever ended it."""
    import pickle  # small streams do without

    answer, answering = os.pipe()
    process = os.fork()
    if not process:
        _answer(ask, answering)
    try:
        os.close(answering)
        with open(answer, "rb") as pipe:  # noqa: PTH123 -- it is open already
            said = pipe.read()
    except BaseException:
        os.kill(process, signal.SIGKILL)
        raise
    finally:
        _, status = os.waitpid(process, 0)
    return None if status else cast("T", pickle.loads(said))


def _answer(ask: Callable[[], object], answering: int) -> NoReturn:
    """What the process does."""
    import pickle
    import resource

    code = 1
    try:
        gc.freeze()  # to look for garbage among what there is would copy every page of it
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with open(answering, "wb") as pipe:
            pipe.write(pickle.dumps(ask()))
        code = 0
    finally:
        os._exit(code)


class Mapping:
    """A part of a file that is mapped, and moves on: the larger the longer it does.

    Arguments:
        descriptor: of the file.
        end: how many bytes it has.
    """

    def __init__(self, descriptor: int, end: int) -> None:
        self._descriptor = descriptor
        self._end = end
        self._begin = 0
        self._view = memoryview(b"")
        self._size = _SMALLEST

    def count(self, place: int, page_size: int, used: int) -> int:
        """How many pages stand from a place of the file on that continue one another, each with its contents.

        Arguments:
            place: of the first one's word.
            page_size: bytes of a page.
            used: the used length of their block.
        """
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
