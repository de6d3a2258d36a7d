"""The log of writes by a hook: no write is lost, and it can be taken while vCPUs write."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, cast

import numpy as np

from migpool_plugins.ram.logs import HookDirtyLog
from tests.support import LONG

if TYPE_CHECKING:
    from migpool_plugins.vcpu.unicorn_machine import UnicornVcpu

PAGE = 4096
PAGES = 1 << 18


class Writer:
    """A vCPU that writes where it is told."""

    def __init__(self) -> None:
        self.hook: Callable[[int], None] | None = None

    def watch_writes(self, hook: Callable[[int], None], begin: int, end: int) -> None:
        assert (begin, end) == (0, PAGES * PAGE - 1)
        self.hook = hook

    def unwatch_writes(self) -> None:
        self.hook = None


def pages(answer: bytes) -> set[int]:
    return set(np.flatnonzero(np.unpackbits(np.frombuffer(answer, dtype=np.uint8), bitorder="little")).tolist())


def test_it_can_be_taken_while_a_vcpu_writes_and_names_every_page() -> None:
    vcpu = Writer()
    log = HookDirtyLog([cast("UnicornVcpu", vcpu)], 0, PAGES * PAGE, nullcontext)
    log.start()
    hook = vcpu.hook
    assert hook is not None
    ended = threading.Event()
    written: list[int] = []

    def write() -> None:
        page = 0
        while not ended.is_set():
            page = (page * 1103515245 + 12345) % PAGES
            hook(page * PAGE)
            written.append(page)

    writing = threading.Thread(target=write)
    named: set[int] = set()
    # The two take turns a hundred times as often as they would, so as many turns of them cost that much less.
    usual = sys.getswitchinterval()
    sys.setswitchinterval(usual / 100)
    writing.start()
    try:
        for _ in range(300 if LONG else 60):
            named |= pages(log.take())
    finally:
        ended.set()
        writing.join()
        sys.setswitchinterval(usual)
    named |= pages(log.take())
    assert written
    assert set(written) <= named
    log.stop()
    assert vcpu.hook is None


def test_the_page_that_is_being_written_is_named_again() -> None:
    vcpu = Writer()
    log = HookDirtyLog([cast("UnicornVcpu", vcpu)], 0, PAGES * PAGE, nullcontext)
    log.start()
    assert vcpu.hook is not None
    vcpu.hook(7 * PAGE + 5)
    assert pages(log.take()) == {7}
    assert pages(log.take()) == {7}  # the write may have been done only now
    vcpu.hook(9 * PAGE)
    assert pages(log.take()) == {7, 9}
    assert pages(log.take()) == {9}
    log.stop()
