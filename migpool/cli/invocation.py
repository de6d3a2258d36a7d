"""What belongs to one call of ``migpool`` as a whole: its common options, and how it ends when something is wrong."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from enum import StrEnum

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


def say(line: str) -> None:
    """One line on stdout, at once."""
    print(line, flush=True)  # noqa: T201


def complain(line: str) -> None:
    """One line on stderr, after what stands on stdout."""
    sys.stdout.flush()
    print(f"migpool: {line}", file=sys.stderr, flush=True)  # noqa: T201


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
