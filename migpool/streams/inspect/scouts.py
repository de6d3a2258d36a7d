"""Processes that go ahead of who reads a file, and tell where its pages of RAM stand.

To read a file copies all of it, though of a page of RAM only the word before it counts. A mapping copies nothing, but
may kill who looks at it; that is then a process of its own, and what it has not told is read.

What a scout tells is of the bytes alone: so many pages continue one another from this place on. It does not know what
they belong to, and need not begin where something does. It counts where who reads the stream comes to one of those
pages, and nowhere else.
"""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import signal
from struct import Struct
from typing import Final, NoReturn, Self

from migpool.streams.inspect.mapping import Mapping, Run
from migpool.wire.pageruns import WORD

_PART: Final = 32 << 20
"""Bytes of a file that are worth a scout."""
_MOST: Final = 4
"""Scouts at a time."""
_SHORT: Final = 16
"""Pages of which a scout tells nothing."""
_TOLD: Final = Struct("=QQQ")
_AT_ONCE: Final = 16 * _TOLD.size


def can_fork() -> bool:
    """Whether this process has a single thread: of others, a fork would have the locks and not the threads."""
    try:
        return len(os.listdir("/proc/self/task")) == 1  # noqa: PTH208 -- their names alone
    except OSError:
        return False


class Scout:
    """A process that looks for runs of pages between two places.

    Arguments:
        descriptor: of the file.
        size: bytes of the file.
        begin: from which place on.
        end: up to which.
        page_size: bytes of a page.

    Attributes:
        begin, end, page_size: the same.
        silent: it has ended, and all that it told has been had.
    """

    def __init__(self, descriptor: int, size: int, begin: int, end: int, page_size: int) -> None:
        self.begin, self.end, self.page_size = begin, end, page_size
        self.silent = False
        self._run = Run(begin, 0, 0)
        told, telling = os.pipe()
        sender = os.getpid()
        self._process = os.fork()
        if not self._process:
            self._tell(descriptor, size, telling, sender)
        os.close(telling)
        self._told = open(told, "rb")  # noqa: PTH123, SIM115 -- it is open already, and close() closes it

    def at(self, place: int) -> Run | None:
        """The run that goes on at a place, from there on, if it was told; the places that are asked for ascend."""
        run, stride = self._run, WORD + self.page_size
        while run.place + run.pages * stride <= place:
            told = self._told.read(_TOLD.size)
            if len(told) < _TOLD.size:
                self.silent = True
                return None
            run = self._run = Run(*_TOLD.unpack(told))
        before, odd = divmod(place - run.place, stride)
        if before < 0 or odd:
            return None
        return Run(place, run.pages - before, run.address + before * self.page_size)

    def close(self) -> None:
        """End the process."""
        self._told.close()
        os.kill(self._process, signal.SIGKILL)
        os.waitpid(self._process, 0)

    def _tell(self, descriptor: int, size: int, telling: int, sender: int) -> NoReturn:
        """What the process does, for as long as who sent it is there."""
        with contextlib.suppress(BaseException):
            gc.freeze()  # to look for garbage among what there is would copy every page of it
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            with open(telling, "wb", buffering=_AT_ONCE) as pipe:
                for run in Mapping(descriptor, size).runs(self.begin, self.end, self.page_size):
                    if run.pages >= _SHORT:
                        pipe.write(_TOLD.pack(*run))
                    if os.getppid() != sender:
                        break
        os._exit(0)


class Scouts:
    """Scouts that are sent ahead in a file, a part each, as soon as there are pages. A context manager; it ends them.

    Arguments:
        descriptor: of the file.
        size: how many bytes it has.
        most: how many there may be at a time.
    """

    def __init__(self, descriptor: int, size: int, most: int) -> None:
        self._descriptor = descriptor
        self._size = size
        self._most = min(most, _MOST)
        self._scouts: list[Scout] = []
        self._again = 0
        """From which place on others may be sent."""

    def count(self, place: int, page_size: int, used: int) -> int:
        """How many pages are known to continue one another from a place of the file on, each with its contents.

        Arguments:
            place: of the first one's word; places ascend.
            page_size: bytes of a page.
            used: the used length of their block.
        """
        found = 0
        right: int | None = None
        while (run := self._at(place, page_size)) is not None and run.address < used and right in (None, run.address):
            count = min(run.pages, -(-(used - run.address) // page_size))
            found, place = found + count, place + count * (WORD + page_size)
            right = run.address + count * page_size
        return found

    def _at(self, place: int, page_size: int) -> Run | None:
        scouts = self._scouts
        while scouts and place >= scouts[0].end:
            scouts.pop(0).close()
        if scouts and place >= scouts[0].begin:
            run = scouts[0].at(place) if scouts[0].page_size == page_size else None
            if not scouts[0].silent:
                return run
            scouts.pop(0).close()
        if place < self._again or not self._send(place, page_size):
            return None
        return self._scouts[0].at(place)

    def _send(self, place: int, page_size: int) -> bool:
        """Send scouts up to the next one's part, or to the end; whether that was worth it."""
        end = self._scouts[0].begin if self._scouts else self._size
        parts = min(max(1, self._most - len(self._scouts)), (end - place) // _PART)
        self._again = place + _PART
        if parts < 1:
            return False
        places = [place + (end - place) * part // parts for part in range(parts)]
        self._scouts[:0] = [
            Scout(self._descriptor, self._size, begin, until, page_size)
            for begin, until in zip(places, [*places[1:], end], strict=True)
        ]
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for scout in self._scouts:
            scout.close()
        self._scouts = []
