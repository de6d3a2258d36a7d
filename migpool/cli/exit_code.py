"""How a command ends: its exit code, and what it says of an error."""

from __future__ import annotations

import re
from enum import IntEnum

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
