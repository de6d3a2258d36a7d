"""``migpool`` in this process, and on a terminal of its own."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable

import pytest

from tests.support.commandline import Ended, here

LIMIT = 60.0


def piped(stream: bytes, *arguments: str) -> Ended:
    """Run a command in a process of its own, with ``stream`` coming through a pipe."""
    ended = subprocess.run(
        [sys.executable, "-m", "migpool", *arguments], input=stream, capture_output=True, timeout=LIMIT, check=False
    )
    return Ended(ended.returncode, ended.stdout.decode(), ended.stderr.decode())


def on_terminal(columns: int, *arguments: str) -> Ended:
    """Run a command on a terminal of so many columns."""
    ours, theirs = pty.openpty()
    try:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": ""}
        command = [sys.executable, "-m", "migpool", *arguments]
        process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=subprocess.DEVNULL, env=environment)
    finally:
        os.close(theirs)
    shown = bytearray()
    with os.fdopen(ours, "rb", buffering=0) as screen, contextlib.suppress(OSError):  # EIO: nobody writes any more
        while part := screen.read(1 << 16):
            shown += part
    return Ended(process.wait(LIMIT), shown.decode(), "")


def fed(stream: bytes, *arguments: str, run: Callable[..., Ended] = here) -> Ended:
    """Run a command in this process, with ``stream`` coming through a pipe on its standard input."""
    reading, writing = os.pipe()
    writer = threading.Thread(target=_write, args=(writing, stream))
    writer.start()
    try:
        with open(reading) as pipe, pytest.MonkeyPatch.context() as patch:  # noqa: PTH123 -- it is open already
            patch.setattr(sys, "stdin", pipe)
            return run(*arguments)
    finally:
        writer.join(LIMIT)


def _write(descriptor: int, stream: bytes) -> None:
    with contextlib.suppress(BrokenPipeError), open(descriptor, "wb") as pipe:
        pipe.write(stream)
