"""Ctrl-C and SIGTERM: what was begun ends in order."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any, Final, Self

from migpool.cli.exit_code import ExitCode

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


def unwind_on_sigterm() -> None:
    """Have SIGTERM end the process as SIGINT does, by an exception: what was begun is undone, temporary files go."""
    signal.signal(signal.SIGTERM, _unwind)


def _unwind(*_: object) -> None:
    raise SystemExit(int(ExitCode.TERMINATED))


class Interrupt:
    """While it is entered, SIGINT and SIGTERM are only noted. Calling it says whether one has come.

    Arguments:
        say: shows a line to the user; called from :meth:`__call__`, never from a signal handler.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._first = 0
        self._came = 0
        self._told = 0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        for number in _SIGNALS:
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __call__(self) -> bool:
        """Whether to cancel. The first signal is acknowledged to the user; later ones are answered, no more."""
        if self._told < self._came:
            still = f"still cancelling, in order; kill -KILL {os.getpid()} would end it by force"
            self._say(still if self._told else "cancelling ...")
            self._told = self._came
        return self._came > 0

    @property
    def exit_code(self) -> int:
        """What a process that was ended by the signal exits with: 130 for SIGINT, 143 for SIGTERM."""
        return 128 + self._first

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._first = self._first or number
        self._came += 1
