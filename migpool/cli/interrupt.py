"""Ctrl-C and SIGTERM as a wish that is looked at, instead of an exception out of nowhere."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Final, Self

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
