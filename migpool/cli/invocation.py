"""What belongs to one call of ``migpool`` as a whole: its common options, and how it ends when something is wrong."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from types import FrameType
from typing import Any, Final, Self

from migpool.errors import MigpoolError, UsageError


class LogFormat(StrEnum):
    PRETTY = "pretty"
    JSON = "json"


@dataclass(slots=True)
class Invocation:
    """The common options. They may stand before the command or after it.

    Attributes:
        verbose: how often ``-v`` was given.
        debug: whether an error shows its traceback.
    """

    verbose: int = 0
    log_format: LogFormat = LogFormat.PRETTY
    debug: bool = False


def explain(error: BaseException) -> tuple[list[str], int]:
    """The lines to print for an error, and the exit code."""
    if isinstance(error, MigpoolError):
        return [f"migpool: {line}" for line in str(error).splitlines()], 2 if isinstance(error, UsageError) else 1
    if isinstance(error, KeyboardInterrupt) or type(error).__name__ == "Abort":
        return ["migpool: cancelled"], 130
    if isinstance(error, SystemExit):
        return [], error.code if isinstance(error.code, int) else 1
    # The parser's own errors. Their class is typer's or click's, as typer was built.
    message = getattr(error, "format_message", None)
    if callable(message):
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "migpool"
        text = " ".join(str(message()).split()).rstrip(".")
        return [f"migpool: {text}; see {command} --help"], 2
    if isinstance(error, BrokenPipeError):
        return [], 1
    what = " ".join(f"{type(error).__name__}: {error}".split())
    return [f"migpool: this should not have happened: {what}; --debug shows where"], 1


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
