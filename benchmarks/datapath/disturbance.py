"""Whether something else takes the CPUs: a run waits for a quiet moment, and one that was disturbed is repeated.

What the whole machine was busy for, as the kernel counts it, less what this process and its children used, is what
others took. Where /proc/stat cannot be read, every run counts as undisturbed.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

__all__ = ["Attempts"]

T = TypeVar("T")

STAT = Path("/proc/stat")
IDLE = (3, 4)
"""The columns of /proc/stat in which nothing ran: idle, and idle while waiting for a disk."""
GUEST = 8
"""From this column on, time is counted a second time."""


LOOK = 0.1
"""Seconds in which the machine is looked at before a run."""
QUIET = 0.03
"""CPU seconds that others may take in them."""


class Attempts:
    """Waits for quiet, and repeats runs that were disturbed.

    Arguments:
        allowed: how much CPU time others may take during a run, in seconds; the kernel's own count is no finer than
            some hundredths.
        most: how often a run is tried; the last attempt counts, disturbed or not.
        patience: how long all waits and repetitions together may take, in seconds; after that, nothing is waited for
            and every first attempt counts.

    Attributes:
        repeated: how many runs were thrown away.
        disturbed: how many of those that count were disturbed nevertheless.
    """

    def __init__(self, allowed: float, most: int, patience: float) -> None:
        self._allowed = allowed
        self._most = most
        self._patience = patience
        self.repeated = 0
        self.disturbed = 0

    def undisturbed(self, run: Callable[[], T]) -> T:
        """Call ``run`` until nobody disturbs it."""
        left = self._most
        while True:
            self._wait_for_quiet()
            began = time.monotonic()
            busy, own = _busy(), _own()
            result = run()
            left -= 1
            if _busy() - busy - (_own() - own) <= self._allowed:
                return result
            if left <= 0 or self._patience <= 0:
                self.disturbed += 1
                return result
            self.repeated += 1
            self._patience -= time.monotonic() - began

    def _wait_for_quiet(self) -> None:
        while self._patience > 0:
            busy = _busy()
            time.sleep(LOOK)
            if _busy() - busy <= QUIET:
                return
            self._patience -= LOOK


def _busy() -> float:
    """Seconds that all CPUs together have not been idle for; what a hypervisor took from them included."""
    try:
        words = STAT.read_text("ascii").partition("\n")[0].split()[1 : GUEST + 1]
    except OSError:
        return 0.0
    ticks = sum(int(word) for column, word in enumerate(words) if column not in IDLE)
    return ticks / os.sysconf("SC_CLK_TCK")


def _own() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
