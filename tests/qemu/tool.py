"""``migpool`` beside a QEMU: started, listened to, and ended. Every wait has a limit."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Final, Self

__all__ = ["Ended", "Tool", "migpool"]

LIMIT: Final = 180.0
GRACE: Final = 20.0
"""Seconds for which it may say why something failed."""
_LISTENING: Final = re.compile(r"^listening on (\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


class Tool:
    """``migpool`` with arguments, running; leaving the context kills and reaps it.

    Arguments:
        arguments: those of the command line.
        prepare: called in the new process before the program begins.
    """

    def __init__(self, *arguments: str, prepare: Callable[[], None] | None = None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "migpool", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=prepare,
        )
        self._said = {self._stream(self._process.stdout): b"", self._stream(self._process.stderr): b""}
        self._open = list(self._said)

    def _stream(self, stream: IO[bytes] | None) -> IO[bytes]:
        assert stream is not None
        return stream

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            # A QEMU that failed knows only that its peer went away: this end may be about to say why.
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(GRACE)
        self._process.kill()
        self._process.wait(LIMIT)
        if error is not None:
            deadline = time.monotonic() + 1.0
            with suppress(AssertionError):  # a process of its own may hold the other end
                while self._open and self._hear(deadline):
                    pass
            error.add_note(f"migpool said: {self._text(self._process.stderr)}")
        for stream in self._said:
            stream.close()

    def address(self) -> str:
        """Where it listens, once it does."""
        deadline = time.monotonic() + LIMIT
        while (found := _LISTENING.search(self._text(self._process.stderr))) is None:
            assert self._hear(deadline), f"migpool does not listen: {self._text(self._process.stderr)}"
        return found[1]

    def interrupt(self) -> None:
        """What Ctrl-C does."""
        self._process.send_signal(signal.SIGINT)

    def wait(self) -> Ended:
        """Wait until it ends by itself."""
        deadline = time.monotonic() + LIMIT
        while self._hear(deadline):
            pass
        code = self._process.wait(max(0.1, deadline - time.monotonic()))
        return Ended(code, self._text(self._process.stdout), self._text(self._process.stderr))

    def _text(self, stream: IO[bytes] | None) -> str:
        return self._said[self._stream(stream)].decode()

    def _hear(self, deadline: float) -> bool:
        """Take what it says; False when it has ended, and all it said was taken."""
        ready, _, _ = select.select(self._open, [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"migpool says nothing and does not end: {self._said}"
        for stream in ready:
            data = os.read(stream.fileno(), 1 << 16)
            self._said[stream] += data
            if not data:
                self._open.remove(stream)
        return bool(self._open)


def migpool(*arguments: str) -> Ended:
    """Run a command to its end."""
    with Tool(*arguments) as tool:
        return tool.wait()
