"""A file's pages of RAM, found through a mapping: nothing of a page is looked at but the word before it."""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Iterator
from typing import Final, NamedTuple

from migpool.wire.pageruns import WORD, run_of_pages
from migpool.wire.ram import CONTINUE, PAGE

_WINDOW: Final = 4 << 20
"""Bytes that are mapped at a time: what the kernel notes of so many pages stays in the processor's cache."""
_MADV_POPULATE_READ: Final = 22  # Linux 5.14; the module mmap does not name it
_REACH: Final = 64 << 10
"""Bytes behind a run in which another one must begin."""
_TRIES: Final = 1 << 15
"""Places that may be looked at in vain for that."""
_LOW: Final = bytes((PAGE | CONTINUE,))
_ANYWHERE: Final = 1 << 64


class Run(NamedTuple):
    """Pages that stand one behind the other and continue one another, each with its contents.

    Arguments:
        place: where the word of the first one stands in the file.
        pages: how many there are.
        address: of the first one, in bytes.
    """

    place: int
    pages: int
    address: int


class Mapping:
    """A file that is mapped, of which a window is looked at after the other.

    If somebody cuts the file short, or its disk fails, whoever looks at what is missing is killed by SIGBUS.

    Arguments:
        descriptor: of the file.
        end: how many bytes it has.
    """

    def __init__(self, descriptor: int, end: int) -> None:
        self._end = end
        self._map = mmap.mmap(descriptor, end, access=mmap.ACCESS_READ)
        with contextlib.suppress(OSError):
            self._map.madvise(mmap.MADV_SEQUENTIAL)
        self._view = memoryview(self._map)
        self._begin = self._window = 0

    def runs(self, place: int, end: int, page_size: int) -> Iterator[Run]:
        """The runs that begin between two places, whatever they belong to; one is told in parts, window by window.

        It ends early where none is near.
        """
        stride, gap, tries = WORD + page_size, 0, _TRIES
        while place < end:
            run = self._run(place, page_size)
            if not run.pages and gap:
                run = self._run(place + gap, page_size)  # mostly there is as much between them as before
            if not run.pages:
                found, tries = self._search(place, stride, page_size, tries)
                if found is None:
                    return
                gap, run = found - place, self._run(found, page_size)
            yield run
            place = run.place + run.pages * stride

    def _run(self, place: int, page_size: int) -> Run:
        """The run that stands at a place, as far as the window goes."""
        stride = WORD + page_size
        if not self._begin <= place <= self._window - stride:
            self._move(place, stride)
        there = self._view[place : max(place, self._window)]
        return Run(place, *run_of_pages(there, page_size, _ANYWHERE))

    def _search(self, place: int, stride: int, page_size: int, tries: int) -> tuple[int | None, int]:
        """Where the first of two pages stands from a place on, and how many tries are left."""
        at = place + WORD - 2
        last = min(place + _REACH, self._end)
        while tries and (at := self._map.find(_LOW, at + 1, last)) >= 0:
            there = at + 1 - WORD
            if run_of_pages(self._view[there : there + 2 * stride], page_size, _ANYWHERE)[0] == 2:
                return there, tries
            tries -= 1
        return None, tries

    def _move(self, place: int, stride: int) -> None:
        """Let go of one window, and go on with the next."""
        if self._window > self._begin:
            self._map.madvise(mmap.MADV_DONTNEED, self._begin, self._window - self._begin)
        self._begin = min(place, self._end) // mmap.PAGESIZE * mmap.PAGESIZE
        self._window = min(self._begin + max(_WINDOW, 2 * stride), self._end)
        if self._window > self._begin:
            with contextlib.suppress(OSError):  # quicker than a page fault for each
                self._map.madvise(_MADV_POPULATE_READ, self._begin, self._window - self._begin)
