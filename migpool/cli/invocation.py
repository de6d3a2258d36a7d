"""What belongs to one call of ``migpool`` as a whole: its common options, and how it ends when something is wrong."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from types import FrameType
from typing import Any, Final, Self

from migpool.errors import MigpoolError, UsageError
from migpool.untrusted.text import printable


class ExitCode(IntEnum):
    """How a command ends."""

    DONE = 0
    """Done; and verified, compatible or conforming, where that is asked."""
    FAILED = 1
    """Failed, or not verified, compatible or conforming; or what was printed could not be written."""
    USAGE = 2
    """Wrong usage: an option, a name, a scenario's key, a file that cannot be used. Nothing was done."""
    CANNOT_TELL = 3
    """`vmsd diff`: one cannot tell whether something breaks."""
    CANCELLED = 130
    """Cancelled by Ctrl-C (SIGINT), in order."""
    TERMINATED = 143
    """Cancelled by SIGTERM, in order."""


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
        code = ExitCode.USAGE if isinstance(error, UsageError) else ExitCode.FAILED
        return [f"migpool: {printable(line)}" for line in str(error).split("\n")], code
    if isinstance(error, KeyboardInterrupt) or type(error).__name__ == "Abort":
        return ["migpool: cancelled"], ExitCode.CANCELLED
    if isinstance(error, SystemExit):
        return [], error.code if isinstance(error.code, int) else ExitCode.FAILED
    # The parser's own errors. Their class is typer's or click's, as typer was built.
    message = getattr(error, "format_message", None)
    if callable(message):
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "migpool"
        text = " ".join(str(message()).split()).rstrip(".").replace(". Did you mean", "; did you mean")
        text = re.sub(r" \(Possible options: (.+)\)$", r"; did you mean \1?", text)
        see = " See" if text.endswith("?") else "; see"
        return [f"migpool: {printable(text)}{see} {command} --help"], ExitCode.USAGE
    if isinstance(error, BrokenPipeError):
        return [], ExitCode.FAILED
    what = " ".join(f"{type(error).__name__}: {error}".split())
    return [f"migpool: this should not have happened: {printable(what)}; --debug shows where"], ExitCode.FAILED


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
