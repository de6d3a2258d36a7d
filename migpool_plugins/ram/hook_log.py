"""What an emulated guest has written, by a hook on every write: for Unicorn, which has no log of its own.

A hook is called before its write is done. So the page that a vCPU was about to write when the log was taken may be
written only afterwards: it is named again in the next answer, for each vCPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

PAGE_SHIFT: Final = 12

Hook = Callable[[int], None]
"""Called with the guest-physical address of each write, before it is done."""


class Hookable(Protocol):
    """A vCPU whose writes can be seen."""

    def watch_writes(self, hook: Hook, begin: int, end: int) -> None:
        """Call ``hook`` before each write to addresses from ``begin`` to ``end``. The vCPU stands."""

    def unwatch_writes(self) -> None:
        """No more. The vCPU stands. Harmless when repeated."""


class HookDirtyLog:
    """The log of all writes of some vCPUs to one piece of memory.

    Arguments:
        vcpus: all that can write.
        address: the guest-physical address where the memory begins.
        size: of the memory, in bytes.
        paused: a context in which every vCPU stands.
    """

    name = "write hook"

    def __init__(
        self, vcpus: Sequence[Hookable], address: int, size: int, paused: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self._vcpus = vcpus
        self._address = address
        self._size = size
        self._paused = paused
        # A byte a page: to set one is a single step of the interpreter, which no other thread can split.
        self._written = np.zeros(size >> PAGE_SHIFT, dtype=np.uint8)
        self._last = [-1] * len(vcpus)
        self._on = False

    def start(self) -> None:
        with self._paused():
            for number, vcpu in enumerate(self._vcpus):
                vcpu.watch_writes(self._hook(number), self._address, self._address + self._size - 1)
        self._on = True

    def take(self) -> bytes:
        # Looked at in a copy: the vCPUs go on, and numpy refuses to search what changes meanwhile.
        found: npt.NDArray[np.intp] = np.flatnonzero(self._written.copy())
        self._written[found] = 0
        for page in self._last:
            if page >= 0:
                self._written[page] = 1
        answer = np.zeros(len(self._written), dtype=np.bool_)
        answer[found] = True
        return np.packbits(answer, bitorder="little").tobytes()

    def stop(self) -> None:
        if not self._on:
            return
        self._on = False
        with self._paused():
            for vcpu in self._vcpus:
                vcpu.unwatch_writes()

    def _hook(self, number: int) -> Hook:
        written, last, address = self._written.data, self._last, self._address

        def hook(at: int) -> None:
            page = (at - address) >> PAGE_SHIFT
            # In this order: a log that is taken between the two has either the page, or it as the last one.
            last[number] = page
            written[page] = 1

        return hook
